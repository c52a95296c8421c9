"""Checkpoints in one file: known by their header, rendered as the diffusers folder is, refused in words."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from tests.engine.conftest import Renderer
from tests.engine.original import make_model, original_weights, unet_name, vae_name, write_checkpoint
from tests.engine.plain import load_plain
from tests.engine.tiny import make_lora
from visionsuit.engine.base import Family, IncompatibleLora, LoraRef, ModelUnloadable
from visionsuit.engine.catalog import content_key, list_base_models, read_base_model
from visionsuit.engine.checkpoints import read_checkpoint
from visionsuit.engine.compat import check_lora, read_base_shapes
from visionsuit.engine.diffusers_engine import DiffusersEngine
from visionsuit.engine.header import read_header
from visionsuit.engine.prompt_tokens import measure_prompt

PROMPT = "a (red:1.3) cat on a sofa!!! don't"
FAMILIES = [Family.SD1, Family.SD2, Family.SDXL]


@pytest.fixture(scope="module", params=FAMILIES, ids=str)
def family(request: pytest.FixtureRequest) -> Family:
    return request.param


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Family, Path]:
    """Folders of each family; the checkpoint of each lies beside, `sd1.safetensors` and so on."""
    place = tmp_path_factory.mktemp("originals")
    made = {}
    for number, family in enumerate(FAMILIES):
        prediction = "v_prediction" if family is Family.SD2 else "epsilon"
        made[family] = make_model(place / family.value, family, prediction_type=prediction, seed=number)
        write_checkpoint(place / f"{family.value}.safetensors", made[family])
    return made


@pytest.fixture
def checkpoint(folders: dict[Family, Path], family: Family) -> Path:
    return folders[family].with_suffix(".safetensors")


def furthest(one: NDArray[np.int16], other: NDArray[np.int16]) -> int:
    return int(np.abs(one - other).max())


def test_the_picture_is_that_of_the_folder(
    engine: DiffusersEngine, folders: dict[Family, Path], family: Family, checkpoint: Path
) -> None:
    infos = {"file": read_base_model(checkpoint), "folder": read_base_model(folders[family])}
    assert infos["file"].family is family
    renderer = Renderer(engine, infos)
    for prompt in (PROMPT, "dog"):
        [ours] = renderer("file", prompt, negative_prompt="blue !")
        [theirs] = renderer("folder", prompt, negative_prompt="blue !")
        assert furthest(ours, theirs) <= 2
    assert furthest(renderer("file", "dog")[0], renderer("file", PROMPT)[0]) > 2


def test_diffusers_reads_the_same_checkpoint(folders: dict[Family, Path], family: Family, checkpoint: Path) -> None:
    """So the files that these tests write are what the world writes."""
    pipeline_class = StableDiffusionXLPipeline if family is Family.SDXL else StableDiffusionPipeline
    theirs = pipeline_class.from_single_file(str(checkpoint), config=str(folders[family]), local_files_only=True)
    theirs.set_progress_bar_config(disable=True)

    def render(pipeline: object) -> NDArray[np.int16]:
        image = pipeline(  # type: ignore[operator]
            "a red cat", num_inference_steps=3, height=64, width=64, generator=torch.Generator().manual_seed(3),
            output_type="np",
        ).images[0]  # fmt: skip
        return (image * 255).round().astype(np.int16)

    assert furthest(render(theirs), render(load_plain(folders[family]))) <= 2


def test_a_lora_fits_the_file_as_it_fits_the_folder(
    engine: DiffusersEngine, folders: dict[Family, Path], family: Family, checkpoint: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.safetensors"
    sha256 = make_lora(path, folders[family], text_encoder=True, conv=True, transformer=True)
    fit = check_lora(read_header(path), checkpoint)
    assert not fit.absent
    assert fit.modules == check_lora(read_header(path), folders[family]).modules
    assert read_base_shapes(checkpoint).index.shapes == read_base_shapes(folders[family]).index.shapes
    renderer = Renderer(engine, {"file": read_base_model(checkpoint), "folder": read_base_model(folders[family])})
    lora = LoraRef(sha256, path, 0.8)
    assert furthest(renderer("file", loras=[lora])[0], renderer("folder", loras=[lora])[0]) <= 2
    other = FAMILIES[FAMILIES.index(family) - 1]
    make_lora(tmp_path / "other.safetensors", folders[other], transformer=True)
    with pytest.raises(IncompatibleLora):
        check_lora(read_header(tmp_path / "other.safetensors"), checkpoint)


def test_a_prompt_is_counted_with_clips_own_words(folders: dict[Family, Path], checkpoint: Path) -> None:
    info = read_base_model(checkpoint)
    assert info.prompt_tokens == 77
    size = measure_prompt(checkpoint, info.key, "a photo of a cat")
    assert (size.tokens, size.chunks, size.room) == (5, 1, 75)


def test_half_precision_and_other_stray_tensors_do_no_harm(
    engine: DiffusersEngine, folders: dict[Family, Path], tmp_path: Path
) -> None:
    folder = folders[Family.SD1]
    half = write_checkpoint(tmp_path / "half.safetensors", folder, dtype=torch.float16)
    renderer = Renderer(engine, {"half": read_base_model(half), "folder": read_base_model(folder)})
    assert np.abs(renderer("half")[0] - renderer("folder")[0]).mean() < 4
    # As some tools write CLIP: without `text_model`.
    tensors = {name.replace("text_model.", ""): tensor for name, tensor in original_weights(folder).items()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "flat.safetensors")
    renderer = Renderer(engine, {"flat": read_base_model(tmp_path / "flat.safetensors")} | renderer.models)
    assert furthest(renderer("flat")[0], renderer("folder")[0]) <= 2


def test_they_are_found_beside_folders(folders: dict[Family, Path], tmp_path: Path) -> None:
    place = folders[Family.SD1].parent
    found = list_base_models(place)
    assert {path.name for path in found} == {name for f in FAMILIES for name in (f.value, f"{f.value}.safetensors")}
    (tmp_path / "old.ckpt").write_bytes(b"\x80\x02")
    assert list_base_models(tmp_path) == [tmp_path / "old.ckpt"]
    with pytest.raises(ModelUnloadable, match=r"old\.ckpt is a Python pickle.*safetensors"):
        read_base_model(tmp_path / "old.ckpt")


def test_a_file_beside_it_says_more(folders: dict[Family, Path], tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "My model.safetensors", folders[Family.SD1])
    before = content_key(path)
    info = read_base_model(path)
    assert (info.label, info.default.width, info.prediction_type, info.sizes[0]) == (
        "My model", 512, "epsilon", (512, 512),
    )  # fmt: skip
    (tmp_path / "My model.json").write_text(
        json.dumps({"label": "Mine", "default": {"width": 64, "height": 64}, "prediction_type": "v_prediction"})
    )
    assert content_key(path) != before
    info = read_base_model(path)
    assert (info.label, info.default.width, info.prediction_type) == ("Mine", 64, "v_prediction")
    assert read_checkpoint(path).configs["scheduler"]["prediction_type"] == "v_prediction"


@pytest.mark.parametrize(
    ("name", "metadata", "extra", "text", "prediction", "side"),
    [
        ("sd2", None, (), None, "v_prediction", 768),
        ("512-base-ema", None, (), None, "epsilon", 512),
        ("sd2", {"modelspec.prediction_type": "epsilon"}, (), None, "epsilon", 512),
        ("sd2-512", None, (), "model:\n  params:\n    parameterization: \"v\"\n", "v_prediction", 768),
        ("sdxl", None, (), None, "epsilon", 1024),
        ("sdxl", None, ("v_pred", "ztsnr"), None, "v_prediction", 1024),
        ("sd1", {"modelspec.prediction_type": "v"}, (), None, "v_prediction", 512),
    ],
)  # fmt: skip
def test_prediction_type(
    folders: dict[Family, Path],
    tmp_path: Path,
    name: str,
    metadata: dict[str, str] | None,
    extra: tuple[str, ...],
    text: str | None,
    prediction: str,
    side: int,
) -> None:
    family = {"sdxl": Family.SDXL, "sd1": Family.SD1}.get(name, Family.SD2)
    tensors = load_file(folders[family].with_suffix(".safetensors"))
    tensors |= {marker: torch.zeros(1) for marker in extra}
    path = tmp_path / f"{name}.safetensors"
    save_file(tensors, path, metadata=metadata)
    if text:
        path.with_suffix(".yaml").write_text(text)
    info = read_base_model(path)
    assert (info.prediction_type, info.default.width) == (prediction, side)
    assert read_checkpoint(path).configs["scheduler"]["rescale_betas_zero_snr"] is ("ztsnr" in extra)


def test_real_sizes_are_known_by_the_header_alone(tmp_path: Path) -> None:
    """Headers as large models have them, over holes: no weight is there to be read."""
    for family, width, blocks, depth, heads in (
        (Family.SD1, 768, (320, 640, 1280, 1280), (1, 1, 1, 0), 8),
        (Family.SD2, 1024, (320, 640, 1280, 1280), (1, 1, 1, 0), [5, 10, 20, 20]),
        (Family.SDXL, 2048, (320, 640, 1280), (0, 2, 10), [5, 10, 20]),
    ):
        path = tmp_path / f"{family.value}.safetensors"
        _write_header(path, _real_shapes(family, width, blocks, depth))
        checkpoint = read_checkpoint(path)
        unet, text = checkpoint.configs["unet"], checkpoint.configs["text_encoder"]
        assert checkpoint.family is family
        assert unet["block_out_channels"] == list(blocks)
        assert (unet["cross_attention_dim"], unet["attention_head_dim"]) == (width, heads)
        assert [kind.startswith("Cross") for kind in unet["down_block_types"]] == [bool(d) for d in depth]
        assert (text["hidden_size"], text["num_attention_heads"]) == ((1024, 16) if width == 1024 else (768, 12))
        assert text["num_hidden_layers"] == (23 if family is Family.SD2 else 12)
        assert checkpoint.configs["vae"]["block_out_channels"] == [128, 256, 512, 512]
        assert checkpoint.weights_bytes > 9 * 10**8
        if family is Family.SDXL:
            assert unet["transformer_layers_per_block"] == [1, 2, 10]
            assert (unet["addition_time_embed_dim"], unet["projection_class_embeddings_input_dim"]) == (256, 2816)
            assert checkpoint.configs["text_encoder_2"]["num_attention_heads"] == 20


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_every_weight_of_the_real_models_has_its_place(tmp_path: Path, family: Family) -> None:
    """The header of a checkpoint of full size gives diffusers' models of full size, name by name and shape by shape."""
    width, blocks, depth = {
        Family.SD1: (768, (320, 640, 1280, 1280), (1, 1, 1, 0)),
        Family.SD2: (1024, (320, 640, 1280, 1280), (1, 1, 1, 0)),
        Family.SDXL: (2048, (320, 640, 1280), (0, 2, 10)),
    }[family]
    down = tuple("CrossAttnDownBlock2D" if layers else "DownBlock2D" for layers in depth)
    up = tuple("CrossAttnUpBlock2D" if layers else "UpBlock2D" for layers in reversed(depth))
    extra = {"addition_embed_type": "text_time", "addition_time_embed_dim": 256}
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=blocks, down_block_types=down, up_block_types=up, cross_attention_dim=width,
            attention_head_dim=8 if family is Family.SD1 else tuple(channels // 64 for channels in blocks),
            use_linear_projection=family is not Family.SD1,
            transformer_layers_per_block=(1, 2, 10) if family is Family.SDXL else 1,
            **(extra | {"projection_class_embeddings_input_dim": 2816} if family is Family.SDXL else {}),
        )  # fmt: skip
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        )  # fmt: skip
    shapes = _real_shapes(family, width, blocks, depth)
    shapes = {name: shape for name, shape in shapes.items() if not name.startswith(("model.", "first_stage_model."))}
    for name, weight in unet.state_dict().items():
        shapes[f"model.diffusion_model.{unet_name(name, unet.config)}"] = tuple(weight.shape)
    for name, weight in vae.state_dict().items():
        original = vae_name(name)
        is_matrix = ".attn_1." in original and weight.dim() == 2
        shapes[f"first_stage_model.{original}"] = (*weight.shape, 1, 1) if is_matrix else tuple(weight.shape)
    _write_header(tmp_path / "real.safetensors", shapes)
    checkpoint = read_checkpoint(tmp_path / "real.safetensors")
    for part, module in (("unet", unet), ("vae", vae)):
        assert checkpoint.shapes[part] == {name: tuple(weight.shape) for name, weight in module.state_dict().items()}
        with torch.device("meta"):
            built = type(module)(**checkpoint.configs[part])
        assert {name: tuple(weight.shape) for name, weight in built.state_dict().items()} == checkpoint.shapes[part]
    heads = "attention_head_dim"
    assert list(np.ravel(checkpoint.configs["unet"][heads])) == list(np.ravel(unet.config[heads]))


DAMAGES = {
    "empty": "too short",
    "cut in the header": "ends within its header",
    "cut in the weights": "is cut off",
    "garbage": "does not begin with a safetensors header",
    "bad offsets": "makes no sense",
    "lora": "is a LoRA",
    "one part": "one part of a diffusers folder",
    "no names": "none of its names are known",
    "unet alone": "a UNet alone, without text encoder",
    "no vae": "holds no VAE",
    "sd3": "Stable Diffusion 3",
    "flux": "Flux",
    "refiner": "refiner",
    "pix2pix": "made for another task",
    "no heads": "is no whole checkpoint",
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_what_is_no_whole_checkpoint_is_refused(folders: dict[Family, Path], tmp_path: Path, damage: str) -> None:
    path = tmp_path / "bad.safetensors"
    whole = folders[Family.SD1].with_suffix(".safetensors").read_bytes()
    tensors = load_file(folders[Family.SD1].with_suffix(".safetensors"))
    one = torch.zeros(4, 4)
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "cut in the header":
        path.write_bytes(whole[:1000])
    elif damage == "cut in the weights":
        path.write_bytes(whole[:-1000])
    elif damage == "garbage":
        path.write_bytes(b"\xff" * 4096)
    elif damage == "bad offsets":
        header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": "x"}}).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header)
    elif damage == "lora":
        make_lora(path, folders[Family.SD1])
    elif damage == "one part":
        save_file(load_file(next((folders[Family.SD1] / "unet").glob("*.safetensors"))), path)
    elif damage == "no names":
        save_file({"a": one}, path)
    elif damage == "unet alone":
        save_file({name: tensor for name, tensor in tensors.items() if name.startswith("model.diff")}, path)
    elif damage == "no vae":
        save_file({name: tensor for name, tensor in tensors.items() if not name.startswith("first_stage")}, path)
    elif damage == "sd3":
        save_file({"model.diffusion_model.joint_blocks.0.x.weight": one}, path)
    elif damage == "flux":
        save_file({"double_blocks.0.img_attn.proj.weight": one}, path)
    elif damage == "refiner":
        save_file(tensors | {"conditioner.embedders.0.model.ln_final.weight": one}, path)
    elif damage == "pix2pix":
        name = "model.diffusion_model.input_blocks.0.0.weight"
        save_file(tensors | {name: torch.zeros(32, 8, 3, 3)}, path)
    elif damage == "no heads":
        save_file({name: tensor for name, tensor in tensors.items() if ".attn2.to_k" not in name}, path)
    with pytest.raises(ModelUnloadable, match=r"bad\.safetensors") as caught:
        read_base_model(path)
    assert DAMAGES[damage] in caught.value.message


@pytest.mark.parametrize("damage", ["missing", "shape", "hostile"])
def test_weights_that_do_not_fit_are_an_error_of_that_render_alone(
    engine: DiffusersEngine, folders: dict[Family, Path], tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "odd.safetensors"
    tensors = load_file(folders[Family.SD1].with_suffix(".safetensors"))
    name = "model.diffusion_model.middle_block.0.in_layers.2.weight"
    if damage == "missing":
        del tensors[name]
    else:
        tensors[name] = torch.zeros(3, 3)
    save_file(tensors, path)
    if damage == "hostile":
        content = path.read_bytes()
        path.write_bytes(content.replace(b'"data_offsets":[', b'"data_offsets":[9', 1))
    renderer = Renderer(engine, {"sd1": read_base_model(folders[Family.SD1].with_suffix(".safetensors"))})
    with pytest.raises(ModelUnloadable, match="odd"):
        Renderer(engine, {"odd": read_base_model(path)})("odd")
    assert renderer("sd1")[0].shape == (64, 64, 3)


def test_describing_one_imports_no_torch(folders: dict[Family, Path]) -> None:
    path = folders[Family.SDXL].with_suffix(".safetensors")
    code = (
        "import sys; from pathlib import Path; from visionsuit.engine.catalog import read_base_model\n"
        "from visionsuit.engine.compat import read_base_shapes\n"
        f"path = Path({str(path)!r}); read_base_model(path); read_base_shapes(path); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def _write_header(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    raw = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + end)


def _real_shapes(
    family: Family, width: int, blocks: tuple[int, ...], depth: tuple[int, ...]
) -> dict[str, tuple[int, ...]]:
    """What the recogniser looks at, of the published models; the rest of their tensors says nothing new."""
    shapes: dict[str, tuple[int, ...]] = {}
    unet = "model.diffusion_model."
    linear = family is not Family.SD1
    shapes[f"{unet}input_blocks.0.0.weight"] = (320, 4, 3, 3)
    shapes[f"{unet}out.2.weight"] = (4, 320, 3, 3)

    def attention(place: str, channels: int, layers: int) -> None:
        shapes[f"{place}.proj_in.weight"] = (channels, channels) if linear else (channels, channels, 1, 1)
        for layer in range(layers):
            shapes[f"{place}.transformer_blocks.{layer}.attn2.to_k.weight"] = (channels, width)
            shapes[f"{place}.transformer_blocks.{layer}.ff.net.0.proj.weight"] = (channels * 8, channels)

    for level, channels in enumerate(blocks):
        for layer in range(2):
            number = level * 3 + layer + 1
            shapes[f"{unet}input_blocks.{number}.0.in_layers.2.weight"] = (channels, channels, 3, 3)
            attention(f"{unet}input_blocks.{number}.1", channels, depth[level]) if depth[level] else None
        if level < len(blocks) - 1:
            shapes[f"{unet}input_blocks.{level * 3 + 3}.0.op.weight"] = (channels, channels, 3, 3)
        back = len(blocks) - 1 - level
        for layer in range(3):
            number = back * 3 + layer
            shapes[f"{unet}output_blocks.{number}.0.in_layers.2.weight"] = (channels, 2 * channels, 3, 3)
            attention(f"{unet}output_blocks.{number}.1", channels, depth[level]) if depth[level] else None
    attention(f"{unet}middle_block.1", blocks[-1], max(1, depth[-1]))
    for level, channels in enumerate((128, 256, 512, 512)):
        for layer in range(2):
            shapes[f"first_stage_model.encoder.down.{level}.block.{layer}.conv1.weight"] = (channels, channels, 3, 3)
        shapes[f"first_stage_model.decoder.up.{level}.block.0.conv1.weight"] = (channels, channels, 3, 3)
    shapes["first_stage_model.encoder.conv_in.weight"] = (128, 3, 3, 3)
    shapes["first_stage_model.decoder.conv_in.weight"] = (512, 4, 3, 3)
    shapes["first_stage_model.decoder.conv_out.weight"] = (3, 128, 3, 3)

    def clip(prefix: str) -> None:
        shapes[f"{prefix}embeddings.token_embedding.weight"] = (49408, 768)
        shapes[f"{prefix}embeddings.position_embedding.weight"] = (77, 768)
        for layer in range(12):
            shapes[f"{prefix}encoder.layers.{layer}.mlp.fc1.weight"] = (3072, 768)

    def open_clip(prefix: str, channels: int, layers: int) -> None:
        shapes[f"{prefix}token_embedding.weight"] = (49408, channels)
        shapes[f"{prefix}positional_embedding"] = (77, channels)
        shapes[f"{prefix}text_projection"] = (channels, channels)
        for layer in range(layers):
            shapes[f"{prefix}transformer.resblocks.{layer}.mlp.c_fc.weight"] = (4 * channels, channels)

    if family is Family.SD1:
        clip("cond_stage_model.transformer.text_model.")
    elif family is Family.SD2:
        open_clip("cond_stage_model.model.", 1024, 24)
    else:
        clip("conditioner.embedders.0.transformer.text_model.")
        open_clip("conditioner.embedders.1.model.", 1280, 32)
        shapes[f"{unet}label_emb.0.0.weight"] = (1280, 2816)
    return shapes


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F16", "shape": [1], "data_offsets": [0, float("inf")]}},
        {
            name: {"dtype": "F16", "shape": [0]}
            for name in (f"model.diffusion_model.input_blocks.{'9' * 5000}.0.op.x", "cond_stage_model.x")
        },
        {
            name: {"dtype": "F16", "shape": []}
            for name in (
                "model.diffusion_model.out.0.weight",
                "first_stage_model.encoder.conv_in.weight",
                "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight",
                "cond_stage_model.model.transformer.resblocks.1.attn.in_proj_weight",
            )
        },
    ],
    ids=["endless", "digits", "no shape"],
)
def test_a_header_of_nonsense_is_refused_in_words(tmp_path: Path, header: dict[str, dict[str, object]]) -> None:
    path = tmp_path / "odd.safetensors"
    raw = json.dumps({name: {"data_offsets": [0, 0], **entry} for name, entry in header.items()}).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw)
    with pytest.raises(ModelUnloadable, match="makes no sense"):
        read_checkpoint(path)
    with pytest.raises(ModelUnloadable):
        read_base_model(path)
