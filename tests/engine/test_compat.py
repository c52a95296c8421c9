import struct
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.tiny import DEMO, make_lora, make_tiny_sd, make_tiny_sdxl
from visionsuit.engine.base import Family, IncompatibleLora, ModelUnloadable
from visionsuit.engine.compat import BaseShapes, check_lora, describe_lora, guess_kind, read_base_shapes
from visionsuit.engine.header import BadHeader, read_header, tensors_of
from visionsuit.engine.lora_names import Component, ModuleIndex, training_aliases

SD15 = {"cross_attention_dim": 768, "attention_head_dim": 8}
SDXL = {
    "cross_attention_dim": 2048,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "attention_head_dim": (5, 10, 20),
    "transformer_layers_per_block": (1, 2, 10),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


def real_size(options: dict[str, Any], family: Family) -> BaseShapes:
    """A base model of the published size, its UNet without memory behind it."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**options)
    shapes = {
        name.removesuffix(".weight"): tuple(tensor.shape)
        for name, tensor in unet.state_dict().items()
        if name.endswith(".weight") and tensor.ndim in (2, 4)
    }
    return BaseShapes(family, ModuleIndex({Component.UNET: shapes}), options["cross_attention_dim"])


@pytest.fixture(scope="module")
def sd15() -> BaseShapes:
    return real_size(SD15, Family.SD1)


@pytest.fixture(scope="module")
def sdxl() -> BaseShapes:
    return real_size(SDXL, Family.SDXL)


def lora_header(base: BaseShapes, *, kohya: bool, rank: int = 8, sgm: bool = False) -> dict[str, Any]:
    """The header that a LoRA on all attention layers of `base` has."""
    modules = base.index.shapes[Component.UNET]
    aliases = {name: alias for alias, name in training_aliases(modules).items()} if sgm else {}
    header: dict[str, Any] = {}
    for name, shape in modules.items():
        if ".attentions." not in name:
            continue
        stem = "lora_unet_" + aliases.get(name, name).replace(".", "_") if kohya else f"unet.{name}"
        down, up = ("lora_down", "lora_up") if kohya else ("lora_A", "lora_B")
        header[f"{stem}.{down}.weight"] = {"dtype": "F16", "shape": [rank, *shape[1:]], "data_offsets": [0, 0]}
        header[f"{stem}.{up}.weight"] = {
            "dtype": "F16", "shape": [shape[0], rank, *(1 for _ in shape[2:])], "data_offsets": [0, 0],
        }  # fmt: skip
        if kohya:
            header[f"{stem}.alpha"] = {"dtype": "F32", "shape": [], "data_offsets": [0, 0]}
    return header


@pytest.mark.parametrize("kohya", [True, False])
def test_real_sizes_fit_their_own_family_alone(sd15: BaseShapes, sdxl: BaseShapes, kohya: bool) -> None:
    for_sd, for_xl = lora_header(sd15, kohya=kohya), lora_header(sdxl, kohya=kohya)
    assert check_lora(for_sd, sd15).modules == {Component.UNET: 192}
    assert check_lora(for_xl, sdxl).modules == {Component.UNET: 722}
    with pytest.raises(
        IncompatibleLora, match=r"made for SDXL \(cross attention 2048\), the base model is SD 1.5 \(768\)"
    ):
        check_lora(for_xl, sd15)
    with pytest.raises(IncompatibleLora, match=r"made for SD 1.5 \(cross attention 768\), the base model is SDXL"):
        check_lora(for_sd, sdxl)


def test_names_of_the_training_code_are_the_published_ones(sd15: BaseShapes, sdxl: BaseShapes) -> None:
    xl = training_aliases(sdxl.index.shapes[Component.UNET])
    assert len(xl) == len(sdxl.index.shapes[Component.UNET])
    assert {alias: xl[alias] for alias in (
        "input_blocks.0.0", "input_blocks.3.0.op", "input_blocks.4.0.skip_connection", "middle_block.1.proj_in",
        "input_blocks.4.1.proj_out", "output_blocks.0.1.transformer_blocks.9.ff.net.2",
        "output_blocks.2.2.conv", "output_blocks.8.0.out_layers.3", "out.2", "label_emb.0.2", "time_embed.0",
    )} == {
        "input_blocks.0.0": "conv_in",
        "input_blocks.3.0.op": "down_blocks.0.downsamplers.0.conv",
        "input_blocks.4.0.skip_connection": "down_blocks.1.resnets.0.conv_shortcut",
        "middle_block.1.proj_in": "mid_block.attentions.0.proj_in",
        "input_blocks.4.1.proj_out": "down_blocks.1.attentions.0.proj_out",
        "output_blocks.0.1.transformer_blocks.9.ff.net.2": "up_blocks.0.attentions.0.transformer_blocks.9.ff.net.2",
        "output_blocks.2.2.conv": "up_blocks.0.upsamplers.0.conv",
        "output_blocks.8.0.out_layers.3": "up_blocks.2.resnets.2.conv2",
        "out.2": "conv_out",
        "label_emb.0.2": "add_embedding.linear_2",
        "time_embed.0": "time_embedding.linear_1",
    }  # fmt: skip
    sd = training_aliases(sd15.index.shapes[Component.UNET])
    assert sd["output_blocks.2.1.conv"] == "up_blocks.0.upsamplers.0.conv"
    assert sd["output_blocks.5.2.conv"] == "up_blocks.1.upsamplers.0.conv"
    assert check_lora(lora_header(sdxl, kohya=True, sgm=True), sdxl).modules == {Component.UNET: 722}


@pytest.mark.parametrize("kind", ["kohya", "diffusers"])
def test_files_fit_the_folder_they_were_made_for(tmp_path: Path, kind: str) -> None:
    sd, xl = make_tiny_sd(tmp_path / "sd"), make_tiny_sdxl(tmp_path / "xl")
    for number, base in enumerate((sd, xl, DEMO)):
        path = tmp_path / f"{number}.safetensors"
        make_lora(path, base, kind=kind, text_encoder=True, conv=True)  # type: ignore[arg-type]
        header = read_header(path)
        fit = check_lora(header, base)
        assert fit.unknown == ()
        assert fit.modules[Component.TEXT_ENCODER] == 18
        described = describe_lora(header)
        assert described.family is (Family.SDXL if base is xl else Family.SD1)
        assert (described.format, described.rank, described.alpha) == (kind, 4, 4.0)
        assert described.text_encoder
        assert described.convolutions
        assert {"to_q", "to_out.0", "conv1", "q_proj", "fc2"} <= set(described.targets)
        assert guess_kind(header) == ("LYCORIS" if kind == "kohya" else "LORA")
        for other in {sd, xl, DEMO} - {base}:
            with pytest.raises(IncompatibleLora):
                check_lora(header, other)
    assert describe_lora(read_header(tmp_path / "2.safetensors")).base_model == "VisionSuit Demo"


def test_old_diffusers_names(sd15: BaseShapes) -> None:
    block = "down_blocks.1.attentions.0.transformer_blocks.0"
    shapes = {
        f"unet.{block}.attn1.processor.to_q_lora.down.weight": [4, 640],
        f"unet.{block}.attn1.processor.to_q_lora.up.weight": [640, 4],
        f"unet.{block}.attn2.processor.to_out_lora.down.weight": [4, 640],
        f"unet.{block}.attn2.processor.to_out_lora.up.weight": [640, 4],
        "unet.mid_block.attentions.0.proj_in.lora.down.weight": [4, 1280, 1, 1],
        "unet.mid_block.attentions.0.proj_in.lora.up.weight": [1280, 4, 1, 1],
        "base_model.model.mid_block.attentions.0.proj_out.lora_A.weight": [4, 1280],
        "base_model.model.mid_block.attentions.0.proj_out.lora_B.weight": [1280, 4],
    }
    header = {name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for name, shape in shapes.items()}
    assert check_lora(header, sd15).modules == {Component.UNET: 4}


def test_unknown_extra_tensors_are_no_obstacle(sd15: BaseShapes) -> None:
    header = lora_header(sd15, kohya=True) | {
        "bundle_emb.x.string_to_param.*": {"dtype": "F32", "shape": [4, 768], "data_offsets": [0, 0]},
        "__metadata__": {"note": "hello"},
    }
    assert check_lora(header, sd15).unknown == ("bundle_emb.x.string_to_param.*",)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda shape: [shape[0], shape[1] + 1, *shape[2:]], "inputs"),
        (lambda shape: [shape[0] + 1, *shape[1:]], "rank"),
        (lambda shape: [*shape[:2], 5, 5], "kernel"),
        (lambda shape: [0, *shape[1:]], "no LoRA"),
        (lambda shape: [7], "no LoRA"),
    ],
)
def test_what_does_not_fit_is_named(sd15: BaseShapes, change: Any, reason: str) -> None:
    header = lora_header(sd15, kohya=True)
    key = next(name for name in header if "proj_in.lora_down" in name)
    header[key] = header[key] | {"shape": change(header[key]["shape"])}
    with pytest.raises(IncompatibleLora, match=reason):
        check_lora(header, sd15)


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        ({"hada_w1_a": [8, 4], "hada_w1_b": [4, 8], "hada_w2_a": [8, 4], "hada_w2_b": [4, 8]}, "changes a weight of"),
        ({"hada_w1_a": [8, 4], "hada_w1_b": [4, 8], "hada_w2_a": [8, 4]}, "make no whole"),
        ({"hada_w1_a": [8, 4], "hada_w1_b": [5, 8], "hada_w2_a": [8, 4], "hada_w2_b": [5, 8]}, "make no whole"),
        ({"lokr_w1": [4, 4]}, "make no whole"),
        ({"lokr_w1": [4, 4], "lokr_w2": [5, 5]}, "changes a weight of"),
        ({"diff": [8, 8]}, "changes a weight of"),
        ({"diff": [8]}, "make no whole"),
        ({"dora_scale": [77, 1]}, "77 magnitudes"),
        ({"oft_blocks": [4, 4, 4]}, "do not turn 320 outputs"),
        ({"oft_blocks": [2, 4, 4, 4]}, "kind of OFT that is not known"),
        ({"oft_R.weight": [4, 6]}, "kind of OFT that is not known"),
        ({"oft_blocks": [4, 80, 80], "rescale": [4, 1]}, "OFT factors"),
        ({"diff_b": [77]}, "a bias of shape"),
        # Shapes that are checked of one format and read of another.
        ({"oft_blocks": [4, 80, 80], "hada_w1_a": [1 << 20, 1], "hada_w1_b": [1, 1 << 20]}, "in two ways at once"),
        ({"lora_mid.weight": [8, 8, 1, 1], "dora_scale": [77, 1]}, "77 magnitudes"),
        ({"lokr_w1": [], "lokr_w1_a": [2, 2], "lokr_w1_b": [2, 2], "lokr_w2": [160, 384]}, "make no whole"),
        ({"lokr_w1": [2, 2, 1, 1], "lokr_w2": [5, 5]}, "changes a weight of"),
        ({"lokr_w1": [2, 1, 1, 2], "lokr_w2": [160, 384]}, "make no whole"),
    ],
)
def test_lycoris_and_dora_that_do_not_fit_are_named(sd15: BaseShapes, shapes: dict[str, Any], reason: str) -> None:
    header = lora_header(sd15, kohya=True)
    stem = next(iter(header)).split(".")[0]
    for suffix, shape in shapes.items():
        header[f"{stem}.{suffix}"] = {"dtype": "F16", "shape": shape, "data_offsets": [0, 0]}
    with pytest.raises(IncompatibleLora, match=reason):
        check_lora(header, sd15)


@pytest.mark.parametrize(
    "shapes",
    [
        {"lora_down.weight": [1, 320], "lora_up.weight": [4, 1 << 20], "lora_mid.weight": [1 << 20, 1, 3, 3]},
        {"lora_down.weight": [1 << 20, 320, 3, 3], "lora_up.weight": [4, 1 << 20, 1, 1]},
        {
            f"hada_{name}": shape
            for n in (1, 2)
            for name, shape in (
                (f"t{n}", [1, 1 << 20, 3, 3]),
                (f"w{n}_a", [1, 4]),
                (f"w{n}_b", [1 << 20, 320]),
            )
        },
    ],
    ids=["middle", "pair", "core"],
)
def test_ranks_that_would_fill_the_memory_are_refused(sd15: BaseShapes, shapes: dict[str, list[int]]) -> None:
    header = {f"lora_unet_conv_out.{name}": {"dtype": "F8_E4M3", "shape": shape} for name, shape in shapes.items()}
    with pytest.raises(IncompatibleLora, match=r"has (a )?rank"):
        check_lora(header, sd15)


def test_kernels_beside_a_middle_matrix_are_refused(sd15: BaseShapes) -> None:
    shapes = {"lora_down.weight": [4, 320, 3, 3], "lora_up.weight": [4, 4], "lora_mid.weight": [4, 4, 3, 3]}
    header = {f"lora_unet_conv_out.{name}": {"dtype": "F16", "shape": shape} for name, shape in shapes.items()}
    with pytest.raises(IncompatibleLora, match="beside its middle matrix"):
        check_lora(header, sd15)


def test_a_core_that_nobody_needs_does_no_harm(sd15: BaseShapes) -> None:
    shapes = {"lokr_w1": [2, 2], "lokr_w2": [160, 384], "lokr_t2": []}
    stem = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    header = {f"{stem}.{name}": {"dtype": "F16", "shape": shape} for name, shape in shapes.items()}
    assert check_lora(header, sd15).modules == {Component.UNET: 1}


def test_lycoris_that_fits_is_taken(sd15: BaseShapes) -> None:
    sides = {"hada_w1_a": [320, 4], "hada_w1_b": [4, 768], "hada_w2_a": [320, 4], "hada_w2_b": [4, 768]}
    stem = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    header = {f"{stem}.{name}": {"dtype": "F16", "shape": shape} for name, shape in sides.items()}
    assert check_lora(header, sd15).modules == {Component.UNET: 1}


def test_no_lora_at_all(sd15: BaseShapes) -> None:
    for header in ({}, {"weight": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}}):
        with pytest.raises(IncompatibleLora):
            check_lora(header, sd15)
    checkpoint = {"model.diffusion_model.input_blocks.0.0.weight": {"dtype": "F16", "shape": [320, 4, 3, 3]}}
    assert guess_kind(checkpoint) == "CHECKPOINT"
    assert guess_kind({"emb_params": {"dtype": "F32", "shape": [4, 768]}}) == "TEXTUAL_INVERSION"
    assert guess_kind({}) is None


def test_flux_is_named() -> None:
    header = {
        "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": {"dtype": "F16", "shape": [4, 3072]},
        "lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight": {"dtype": "F16", "shape": [9216, 4]},
    }
    assert describe_lora(header).family is Family.FLUX
    with pytest.raises(IncompatibleLora, match="made for Flux"):
        check_lora(header, DEMO)


def test_facts_from_the_trainers_metadata(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    make_lora(path, DEMO, rank=6, alpha=3)
    facts = describe_lora(read_header(path)).as_facts()
    assert facts["training"]["output_name"] == "mine"
    assert facts["tags"][:2] == ["heart", "red"]
    assert (facts["rank"], facts["alpha"], facts["dtype"]) == (6, 3.0, "F16")


def test_a_large_header_is_checked_quickly(sdxl: BaseShapes) -> None:
    header = lora_header(sdxl, kohya=True)
    started = time.process_time()
    check_lora(header, sdxl)
    describe_lora(header)
    assert time.process_time() - started < 0.5


def test_a_folder_that_is_no_base_model(tmp_path: Path) -> None:
    with pytest.raises(ModelUnloadable):
        read_base_shapes(tmp_path)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [
        "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight",
        "lora_unet_mid_block_attentions_0_proj_in.lora_up.weight",
        "lora_unet_mid_block_attentions_0_proj_in.lora_mid.weight",
        "lora_unet_mid_block_attentions_0_proj_in.alpha",
        "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight",
        "unet..lora_A.weight",
        "lora_te_.lora_down.weight",
        "lora_unet_.hada_w1_a",
        "lora_unet_mid_block_attentions_0_proj_in.hada_w1_a",
        "lora_unet_mid_block_attentions_0_proj_in.lokr_w1",
        "lora_unet_mid_block_attentions_0_proj_in.diff",
        "lora_unet_mid_block_attentions_0_proj_in.dora_scale",
        "__metadata__",
        "_lora.down.weight",
        ".alpha",
    ]
)
ENTRIES = JUNK | st.fixed_dictionaries(
    {"dtype": st.sampled_from(["F16", "Q9", 3]), "shape": st.lists(st.integers(-2, 2**70) | st.none(), max_size=9)}
)


@given(st.dictionaries(NAMES | st.text(max_size=30), ENTRIES, max_size=8))
def test_hostile_headers_are_refused_or_described_never_a_crash(header: dict[str, Any]) -> None:
    describe_lora(header).as_facts()
    guess_kind(header)
    with pytest.raises(IncompatibleLora):
        check_lora(header, DEMO)


@pytest.mark.parametrize(
    "metadata",
    [
        {"ss_tag_frequency": "[" * 100_000, "ss_network_alpha": "nan", "lora_adapter_metadata": "{"},
        {"ss_tag_frequency": '{"a": {"x": "many"}}', "ss_network_alpha": "1e999", "lora_adapter_metadata": "[1]"},
        {"ss_network_alpha": "zero", "lora_adapter_metadata": '{"unet.lora_alpha": "four"}', "n": 3},
        ["not", "a", "mapping"],
    ],
)
def test_hostile_metadata(metadata: Any) -> None:
    described = describe_lora({"__metadata__": metadata})
    assert described.alpha is None
    assert described.tags == ()


@pytest.mark.parametrize(
    "content",
    [b"", b"abc", struct.pack("<Q", 2**63) + b"{}", struct.pack("<Q", 50) + b"{}", struct.pack("<Q", 2) + b"[]",
     struct.pack("<Q", 4) + b"\xff\xfe\x00{", struct.pack("<Q", 100_000) + b"[" * 100_000],
)  # fmt: skip
def test_files_without_a_header(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(BadHeader):
        read_header(path)


def test_malformed_tensors_are_left_out() -> None:
    header = {
        "a": {"dtype": "F16", "shape": [2, 3]},
        "b": {"dtype": "F16", "shape": [True]},
        "c": 4,
        "d": {"shape": [1]},
    }
    assert list(tensors_of(header)) == ["a"]
