"""LoRAs that diffusers' loaders do not take, on pipelines that are rendered whole: equal to dense arithmetic written
out here, and gone without a trace."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import LatentConsistencyModelPipeline
from numpy.typing import NDArray

from tests.engine.conftest import Renderer
from tests.engine.pretend import PretendGpu
from tests.engine.test_batching import alone, furthest, request_for
from tests.engine.test_lora_formats import FORMATS, Tensors, rescaled, turned, write
from tests.engine.test_whole import EULER
from tests.engine.test_whole_loras import base_kept, load_plain, lora
from tests.engine.tiny_whole import make_tiny_lcm
from visionsuit.core.config import Offload
from visionsuit.engine.base import LoraRef, RenderCancelled
from visionsuit.engine.catalog import read_base_model
from visionsuit.engine.change_sizes import measure
from visionsuit.engine.compat import check_lora, read_base_shapes
from visionsuit.engine.diffusers_engine import DiffusersEngine
from visionsuit.engine.header import read_header

#: kohya's name -> diffusers' layers, one below the other.
Names = dict[str, list[str]]
FLUX: Names = {
    "lora_unet_double_blocks_0_img_attn_qkv": [f"transformer.transformer_blocks.0.attn.to_{part}" for part in "qkv"],
    "lora_unet_single_blocks_0_linear1": [
        f"transformer.single_transformer_blocks.0.{part}"
        for part in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
    ],
    "lora_unet_double_blocks_0_txt_mlp_0": ["transformer.transformer_blocks.0.ff_context.net.0.proj"],
    "lora_te1_text_model_encoder_layers_0_mlp_fc1": ["text_encoder.encoder.layers.0.mlp.fc1"],
}
T5 = {"lora_te3_encoder_block_0_layer_0_SelfAttention_v": ["text_encoder_2.encoder.block.0.layer.0.SelfAttention.v"]}
LCM: Names = {
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k": [
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    ],
    "lora_unet_mid_block_resnets_0_conv1": ["unet.mid_block.resnets.0.conv1"],
}
PLAIN = {"flux": load_plain, "lcm": lambda folder: LatentConsistencyModelPipeline.from_pretrained(
    folder, local_files_only=True, safety_checker=None, feature_extractor=None, image_encoder=None
)}  # fmt: skip


@pytest.fixture(scope="module")
def lcm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_lcm(tmp_path_factory.mktemp("changes") / "lcm")


def layers(pipeline: Any, names: list[str]) -> list[Any]:
    found = []
    for name in names:
        component, _, inner = name.partition(".")
        modules = dict(getattr(pipeline, component).named_modules())
        found.append(modules.get(inner) or modules[f"text_model.{inner}"])
    return found


def fused(pipeline: Any, names: list[str]) -> torch.Tensor:
    return torch.cat([layer.weight.data for layer in layers(pipeline, names)])


def ask(renderer: Renderer, model: str = "flux", *refs: LoraRef, **changes: Any) -> NDArray[np.int16]:
    sampler = {"lcm": "lcm"}.get(model, "euler")
    request = request_for(renderer, model, sampler=sampler, schedule="default", steps=4, seeds=(7,))
    picture: NDArray[np.int16] = alone(renderer, replace(request, prompt="a red cat", loras=refs, **changes))[0]
    return picture


@contextmanager
def changed(pipeline: Any, changes: dict[tuple[str, ...], torch.Tensor], part: str = "weight") -> Iterator[None]:
    """The changes are in the plain pipeline's parameters."""
    before: list[tuple[Any, Any]] = []
    try:
        for names, change in changes.items():
            found = layers(pipeline, list(names))
            for layer, own in zip(found, change.split([len(layer.weight) for layer in found]), strict=True):
                old = getattr(layer, part)
                before.append((layer, old))
                setattr(layer, part, torch.nn.Parameter(own if old is None else old.data + own))
        yield
    finally:
        for layer, old in reversed(before):
            setattr(layer, part, old)


def render(pipeline: Any) -> NDArray[np.int16]:
    image = pipeline(
        "a red cat", height=64, width=64, num_inference_steps=4, guidance_scale=4.0, output_type="np",
        generator=torch.Generator().manual_seed(7),
    ).images[0]  # fmt: skip
    picture: NDArray[np.int16] = (image * 255).round().astype(np.int16)
    return picture


def make(
    pipeline: Any, path: Path, names: Names, make_change: Callable[..., tuple[Tensors, torch.Tensor]]
) -> tuple[LoraRef, dict[tuple[str, ...], torch.Tensor]]:
    """The file, and what it adds to the layers."""
    generator = torch.Generator().manual_seed(5)
    tensors: Tensors = {}
    changes = {}
    for stem, theirs in names.items():
        own, changes[tuple(theirs)] = make_change(fused(pipeline, theirs).shape, generator)
        tensors |= {f"{stem}.{part}": tensor for part, tensor in own.items()}
    return write(path, tensors), changes


@pytest.mark.parametrize(
    ("model", "name"), [("flux", "loha"), ("flux", "lokr"), ("flux", "full"), ("lcm", "loha_tucker"), ("lcm", "lokr")]
)
def test_lycoris_equals_dense_arithmetic(
    renderer: Renderer, flux: Path, lcm: Path, tmp_path: Path, model: str, name: str
) -> None:
    """Also where a file has as one layer what are several in diffusers."""
    renderer = Renderer(renderer.engine, renderer.models | {"lcm": read_base_model(lcm)})
    plain = PLAIN[model]({"flux": flux, "lcm": lcm}[model])
    one, changes = make(plain, tmp_path / "one.safetensors", {"flux": FLUX, "lcm": LCM}[model], FORMATS[name])
    bare = ask(renderer, model)
    picture = ask(renderer, model, replace(one, weight=0.7))
    with changed(plain, {names: 0.7 * change for names, change in changes.items()}):
        assert furthest(picture, render(plain)) <= 2
    assert furthest(picture, bare) > 5
    assert np.array_equal(ask(renderer, model), bare)


@pytest.mark.parametrize("weight", [1.0, -0.5])
def test_dora_equals_diffusers(renderer: Renderer, flux: Path, tmp_path: Path, weight: float) -> None:
    """PEFT's names for it, which diffusers loads by itself, and LyCORIS'."""
    plain, generator = load_plain(flux), torch.Generator().manual_seed(2)
    name = "transformer.proj_out"
    base = fused(plain, [name])
    down, up = torch.randn(4, base.shape[1], generator=generator), 0.3 * torch.randn(len(base), 4, generator=generator)
    magnitude = base.norm(dim=1) * (1 + torch.rand(len(base), generator=generator))
    peft = {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up, f"{name}.lora_magnitude_vector": magnitude}
    kohya = {"lora_down.weight": down, "lora_up.weight": up, "dora_scale": magnitude.reshape(-1, 1)}
    stem = "lora_unet_final_layer_linear"
    other = write(tmp_path / "kohya.safetensors", {f"{stem}.{part}": own for part, own in kohya.items()})
    theirs = write(tmp_path / "peft" / "one.safetensors", peft)
    picture = ask(renderer, "flux", replace(theirs, weight=weight))
    plain.load_lora_weights(str(theirs.path.parent), weight_name=theirs.path.name, adapter_name="a")
    try:
        plain.set_adapters(["a"], [weight])
        assert furthest(picture, render(plain)) <= 2
    finally:
        plain.unload_lora_weights()
    assert furthest(picture, ask(renderer, "flux", replace(other, weight=weight))) <= 1
    assert furthest(picture, ask(renderer)) > 2


@pytest.mark.parametrize("row", [False, True], ids=["per output", "per input"])
def test_dora_of_layers_that_are_several(renderer: Renderer, flux: Path, tmp_path: Path, row: bool) -> None:
    """The magnitudes are of the layer as the file has it."""
    plain, generator = load_plain(flux), torch.Generator().manual_seed(3)
    tensors: Tensors = {}
    changes = {}
    for stem, names in FLUX.items():
        base = fused(plain, names)
        own, change = FORMATS["loha"](base.shape, generator)
        across = (0,) if row else (1,)
        sizes = (1, base.shape[1]) if row else (len(base), 1)
        magnitude = base.norm(dim=across, keepdim=True) * (1 + torch.rand(sizes, generator=generator))
        tensors |= {f"{stem}.{part}": tensor for part, tensor in {**own, "dora_scale": magnitude}.items()}
        changes[tuple(names)] = rescaled(base + 0.7 * change, magnitude, across) - base
    one = write(tmp_path / "one.safetensors", tensors)
    picture = ask(renderer, "flux", replace(one, weight=0.7))
    with changed(plain, changes):
        assert furthest(picture, render(plain)) <= 2
    assert furthest(picture, ask(renderer)) > 5


def test_turned_outputs(renderer: Renderer, flux: Path, tmp_path: Path) -> None:
    plain, generator = load_plain(flux), torch.Generator().manual_seed(8)
    tensors: Tensors = {}
    changes = {}
    for stem, names in FLUX.items():
        base = fused(plain, names)
        blocks = 0.4 * torch.randn(4, len(base) // 4, len(base) // 4, generator=generator)
        tensors |= {f"{stem}.oft_blocks": blocks, f"{stem}.alpha": torch.tensor(0.0)}
        changes[tuple(names)] = turned(base, blocks, 0.6, 0.0) - base
    one = write(tmp_path / "oft.safetensors", tensors)
    picture = ask(renderer, "flux", replace(one, weight=0.6))
    with changed(plain, changes):
        assert furthest(picture, render(plain)) <= 2
    assert furthest(picture, ask(renderer)) > 3


def test_biases(renderer: Renderer, flux: Path, tmp_path: Path) -> None:
    """Of a layer that has none, too."""
    plain, generator = load_plain(flux), torch.Generator().manual_seed(9)
    names = FLUX | T5
    changes = {tuple(own): torch.randn(len(fused(plain, own)), generator=generator) for own in names.values()}
    tensors = {f"{stem}.diff_b": changes[tuple(own)] for stem, own in names.items()}
    one = write(tmp_path / "biases.safetensors", tensors)
    with base_kept(renderer):
        picture = ask(renderer, "flux", replace(one, weight=0.5))
        twice = ask(renderer, "flux", replace(one, weight=0.25), replace(one, weight=0.25))
    with changed(plain, {own: 0.5 * change for own, change in changes.items()}, "bias"):
        assert furthest(picture, render(plain)) <= 2
    assert np.array_equal(picture, twice)
    assert furthest(picture, ask(renderer)) > 3


SPELLINGS = {
    "kohya": "lora_te3_encoder_block_{}_layer_{}_{}",
    "kohya, counted": "lora_te2_encoder_block_{}_layer_{}_{}",
    "comfy": "text_encoders.t5xxl.transformer.encoder.block.{}.layer.{}.{}",
    "diffusers": "text_encoder_2.encoder.block.{}.layer.{}.{}",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_other_text_encoder(renderer: Renderer, flux: Path, tmp_path: Path, spelling: str) -> None:
    """T5 has no loader; its own weight and the mix's are apart."""
    plain, generator = load_plain(flux), torch.Generator().manual_seed(4)
    tensors: Tensors = {}
    changes = {}
    for block, layer, name in ((0, 0, "SelfAttention.v"), (1, 0, "SelfAttention.o"), (1, 1, "DenseReluDense.wo")):
        theirs = f"text_encoder_2.encoder.block.{block}.layer.{layer}.{name}"
        base = fused(plain, [theirs])
        down, up = (torch.randn(*size, generator=generator) for size in ((2, base.shape[1]), (len(base), 2)))
        is_kohya = spelling.startswith("kohya")
        stem = SPELLINGS[spelling].format(block, layer, name.replace(".", "_") if is_kohya else name)
        halves = ("lora_down", "lora_up") if is_kohya else ("lora_A", "lora_B")
        tensors |= {f"{stem}.{half}.weight": own for half, own in zip(halves, (down, up), strict=True)}
        tensors |= {f"{stem}.alpha": torch.tensor(6.0)} if is_kohya else {}
        changes[(theirs,)] = (3.0 if is_kohya else 1.0) * up @ down
    one = write(tmp_path / "t5.safetensors", tensors)
    fit = check_lora(read_header(one.path), flux)
    assert sum(fit.modules.values()) == 3
    assert not fit.absent
    bare = ask(renderer)
    picture = ask(renderer, "flux", replace(one, weight=0.0, text_encoder_weight=1.5))
    with changed(plain, {names: 1.5 * change for names, change in changes.items()}):
        assert furthest(picture, render(plain)) <= 2
    assert furthest(picture, bare) > 2
    assert np.array_equal(ask(renderer, "flux", replace(one, text_encoder_weight=0.0)), bare)


def test_with_others_and_one_after_the_other(renderer: Renderer, flux: Path, tmp_path: Path) -> None:
    """A mix with files that are adapters; two that change the same layers add up, and nothing is left of any."""
    plain = load_plain(flux)
    first, changes = make(plain, tmp_path / "first.safetensors", FLUX, FORMATS["loha"])
    second, others = make(plain, tmp_path / "second.safetensors", FLUX, FORMATS["lokr"])
    pair = lora(tmp_path / "pair.safetensors", flux, 0.5, spelling="kohya", text_encoder=True)
    mixes: list[tuple[LoraRef, ...]] = [(first,), (first, pair), (second, pair), (first, second), (pair,), ()]
    with base_kept(renderer):
        pictures = [ask(renderer, "flux", *mix) for mix in mixes]
        for mix, picture in reversed(list(zip(mixes, pictures, strict=True))):
            assert np.array_equal(ask(renderer, "flux", *mix), picture)
    assert len({picture.tobytes() for picture in pictures}) == len(mixes)
    with changed(plain, changes):
        plain.load_lora_weights(str(pair.path.parent), weight_name=pair.path.name, adapter_name="a")
        try:
            plain.set_adapters(["a"], [0.5])
            assert furthest(pictures[1], render(plain)) <= 2
        finally:
            plain.unload_lora_weights()
        with changed(plain, others):
            assert furthest(pictures[3], render(plain)) <= 2


def test_a_cancel_leaves_nothing_behind(renderer: Renderer, flux: Path, tmp_path: Path) -> None:
    one, _ = make(load_plain(flux), tmp_path / "one.safetensors", FLUX, FORMATS["lokr"])
    seen: list[int] = []
    with base_kept(renderer):
        with pytest.raises(RenderCancelled):
            renderer(
                "flux",
                steps=500,
                loras=[one],
                on_progress=lambda progress: seen.append(progress.step),
                is_cancelled=lambda: bool(seen) and seen[-1] > 2,
                **EULER,
            )
        # The one who cancels does not wait for the step's end; the next in the queue does.
        ask(renderer)
    assert seen[-1] < 450


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_in_half_precision(renderer: Renderer, flux: Path, tmp_path: Path, dtype: str) -> None:
    one, _ = make(load_plain(flux), tmp_path / "one.safetensors", FLUX, FORMATS["lokr"])
    one = replace(one, weight=0.3)
    half = renderer.models["flux"].ref.in_dtype(dtype)
    bare = ask(renderer, "flux", base_model=half)
    assert np.abs(ask(renderer, "flux", one, base_model=half) - ask(renderer, "flux", one)).mean() < 6
    assert np.array_equal(ask(renderer, "flux", base_model=half), bare)


@pytest.mark.parametrize("offload", [Offload.ALWAYS, Offload.AUTO])
def test_where_weights_come_and_go(renderer: Renderer, flux: Path, tmp_path: Path, offload: Offload) -> None:
    """Also through diffusers' hooks."""
    one, _ = make(load_plain(flux), tmp_path / "one.safetensors", FLUX | T5, FORMATS["loha"])
    pair = lora(tmp_path / "pair.safetensors", flux, 0.5)
    gpu = PretendGpu("cpu", "Pretended", size=10**9)
    engine = DiffusersEngine(gpu, threads=1, offload=offload)
    engine.start()
    ours = Renderer(engine, renderer.models)
    for mix in ((), (one,), (one, pair), ()):
        assert np.array_equal(ask(ours, "flux", *mix), ask(renderer, "flux", *mix))
    engine.close()


def test_without_room_for_the_originals(renderer: Renderer, flux: Path, tmp_path: Path) -> None:
    """They wait in host memory; what comes back is what was there."""
    one, _ = make(load_plain(flux), tmp_path / "one.safetensors", FLUX | T5, FORMATS["loha"])
    weights = sum(part.numel() * 4 for name in ("transformer", "vae", "text_encoder", "text_encoder_2")
                  for part in getattr(load_plain(flux), name).state_dict().values())  # fmt: skip
    for size in (10**9, int(weights * 1.02)):
        gpu = PretendGpu("cpu", "Pretended", size=size)
        engine = DiffusersEngine(gpu, threads=1, offload=Offload.NEVER)
        engine.start()
        ours = Renderer(engine, renderer.models)
        bare = ask(ours)
        fetched = gpu.moves["fetched"]
        with base_kept(ours):
            assert np.array_equal(ask(ours, "flux", one), ask(renderer, "flux", one))
        assert (gpu.moves["fetched"] > fetched) == (size < 10**9)
        assert np.array_equal(ask(ours), bare)
        engine.close()


def test_the_meter_measures_them(flux: Path, tmp_path: Path) -> None:
    """What is one layer in the file counts where its rows are."""
    one, changes = make(load_plain(flux), tmp_path / "one.safetensors", FLUX, FORMATS["lokr"])
    [measured] = measure([one.path], read_base_shapes(flux)).changes
    assert len(measured.squares) == sum(map(len, FLUX.values()))
    total = sum(float(change.square().sum()) for change in changes.values())
    assert sum(measured.squares.values()) == pytest.approx(total, rel=1e-4)
