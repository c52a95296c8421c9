"""LyCORIS and DoRA files against dense arithmetic written out here, and against diffusers where it knows the format."""

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from tests.engine.conftest import Renderer
from tests.engine.plain import load_plain, render_plain
from tests.engine.tiny import make_lora
from visionsuit.engine.base import LoraRef, LoraUnloadable

Tensors = dict[str, torch.Tensor]
#: kohya's name -> the layer in diffusers: a linear layer, a pointwise and a wide convolution.
LAYERS = {
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k": (
        "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    ),
    "lora_unet_down_blocks_0_attentions_0_proj_in": "down_blocks.0.attentions.0.proj_in",
    "lora_unet_mid_block_resnets_0_conv1": "mid_block.resnets.0.conv1",
}
TEXT = {"lora_te_text_model_encoder_layers_0_mlp_fc1": "encoder.layers.0.mlp.fc1"}


def loha(shape: torch.Size, generator: torch.Generator) -> tuple[Tensors, torch.Tensor]:
    rank, width = 3, shape[1:].numel()
    own = {f"hada_w{n}_{side}": 0.7 * torch.randn(*size, generator=generator)
           for n in (1, 2) for side, size in (("a", (shape[0], rank)), ("b", (rank, width)))}  # fmt: skip
    change = (own["hada_w1_a"] @ own["hada_w1_b"]) * (own["hada_w2_a"] @ own["hada_w2_b"]) * (1.5 / rank)
    return {**own, "alpha": torch.tensor(1.5)}, change.reshape(shape)


def loha_tucker(shape: torch.Size, generator: torch.Generator) -> tuple[Tensors, torch.Tensor]:
    if len(shape) < 4:
        return loha(shape, generator)
    rank, halves = 3, []
    own: Tensors = {}
    for n in (1, 2):
        core = torch.randn(rank, rank, *shape[2:], generator=generator)
        left, right = (torch.randn(rank, side, generator=generator) for side in shape[:2])
        own |= {f"hada_t{n}": core, f"hada_w{n}_a": left, f"hada_w{n}_b": right}
        halves.append(torch.einsum("i j k l, j r, i p -> p r k l", core, right, left))
    return {**own, "alpha": torch.tensor(0.3)}, halves[0] * halves[1] * (0.3 / rank)


def lokr(shape: torch.Size, generator: torch.Generator) -> tuple[Tensors, torch.Tensor]:
    rank, kernel = 2, shape[2:]
    w1 = 0.5 * torch.randn(4, 8, generator=generator)
    a = torch.randn(shape[0] // 4, rank, generator=generator)
    b = 0.3 * torch.randn(rank, shape[1] // 8 * kernel.numel(), generator=generator)
    inner = (a @ b).reshape(shape[0] // 4, shape[1] // 8, *kernel)
    change = torch.kron(w1.reshape(4, 8, *[1] * len(kernel)), inner) * (1.0 / rank)
    return {"lokr_w1": w1, "lokr_w2_a": a, "lokr_w2_b": b, "alpha": torch.tensor(1.0)}, change


def lokr_whole(shape: torch.Size, generator: torch.Generator) -> tuple[Tensors, torch.Tensor]:
    w1 = 0.5 * torch.randn(4, 8, generator=generator)
    w2 = 0.3 * torch.randn(shape[0] // 4, shape[1] // 8, *shape[2:], generator=generator)
    # Two whole matrices have no rank, so their alpha means nothing.
    own = {"lokr_w1": w1, "lokr_w2": w2, "alpha": torch.tensor(123.0)}
    return own, torch.kron(w1.reshape(4, 8, *[1] * (len(shape) - 2)), w2)


def lokr_tucker(shape: torch.Size, generator: torch.Generator) -> tuple[Tensors, torch.Tensor]:
    if len(shape) < 4:
        return lokr(shape, generator)
    w1, rank = 0.5 * torch.randn(4, 8, generator=generator), 2
    core = torch.randn(rank, rank, *shape[2:], generator=generator)
    left = torch.randn(rank, shape[0] // 4, generator=generator)
    right = torch.randn(rank, shape[1] // 8, generator=generator)
    inner = torch.einsum("i j k l, i p, j r -> p r k l", core, left, right).contiguous()
    own = {"lokr_w1": w1, "lokr_w2_a": left, "lokr_w2_b": right, "lokr_t2": core, "alpha": torch.tensor(0.3)}
    return own, torch.kron(w1.reshape(4, 8, 1, 1), inner) * (0.3 / rank)


def full(shape: torch.Size, generator: torch.Generator) -> tuple[Tensors, torch.Tensor]:
    change = 0.2 * torch.randn(shape, generator=generator)
    return {"diff": change}, change


def loha_mixed(shape: torch.Size, generator: torch.Generator) -> tuple[Tensors, torch.Tensor]:
    """One half in Tucker form, the other not."""
    tucker, whole = loha_tucker(shape, generator)[0], loha(shape, generator)[0]
    if len(shape) < 4:
        return loha(shape, generator)
    first = torch.einsum("i j k l, j r, i p -> p r k l", tucker["hada_t1"], tucker["hada_w1_b"], tucker["hada_w1_a"])
    second = (whole["hada_w2_a"] @ whole["hada_w2_b"]).reshape(shape)
    own = {name: tucker[name] for name in ("hada_t1", "hada_w1_a", "hada_w1_b", "alpha")}
    own |= {name: whole[name] for name in ("hada_w2_a", "hada_w2_b")}
    return own, first * second * (0.3 / 3)


FORMATS = {
    "loha": loha,
    "loha_tucker": loha_tucker,
    "loha_mixed": loha_mixed,
    "lokr": lokr,
    "lokr_whole": lokr_whole,
    "lokr_tucker": lokr_tucker,
    "full": full,
}


def furthest(one: NDArray[np.int16], other: NDArray[np.int16]) -> int:
    return int(np.abs(one - other).max())


def write(path: Path, tensors: Tensors) -> LoraRef:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return LoraRef(hashlib.sha256(path.read_bytes()).hexdigest(), path, 1.0)


def make(
    renderer: Renderer, path: Path, make_change: Callable[..., tuple[Tensors, torch.Tensor]]
) -> tuple[LoraRef, Tensors]:
    """The file, and layer name -> change; text encoder layers with `te.` before."""
    pipeline, generator = load_plain(renderer.models["sd"].folder), torch.Generator().manual_seed(5)
    tensors, changes = {}, {}
    for names, module, prefix in ((LAYERS, pipeline.unet, ""), (TEXT, pipeline.text_encoder, "te.")):
        for stem, name in names.items():
            own, changes[f"{prefix}{name}"] = make_change(_layer(module, name).weight.shape, generator)
            tensors |= {f"{stem}.{part}": tensor for part, tensor in own.items()}
    return write(path, tensors), changes


def _layer(module: torch.nn.Module, name: str) -> torch.nn.Module:
    return next(layer for real, layer in module.named_modules() if real.removeprefix("text_model.") == name)


def dense(renderer: Renderer, changes: Tensors, weight: float, **options: object) -> NDArray[np.int16]:
    """The plain pipeline with the changes added to its weights."""
    folder = renderer.models["sd"].folder
    pipeline = load_plain(folder)
    layers = {
        name: _layer(pipeline.text_encoder if name.startswith("te.") else pipeline.unet, name.removeprefix("te."))
        for name in changes
    }
    originals = {name: layer.weight.data for name, layer in layers.items()}
    try:
        for name, layer in layers.items():
            layer.weight.data = originals[name] + weight * changes[name]
        return render_plain(folder, **options)  # type: ignore[arg-type]
    finally:
        for name, layer in layers.items():
            layer.weight.data = originals[name]


@pytest.mark.parametrize("name", FORMATS)
def test_lycoris_equals_dense_arithmetic(renderer: Renderer, tmp_path: Path, name: str) -> None:
    lora, changes = make(renderer, tmp_path / f"{name}.safetensors", FORMATS[name])
    [plain] = renderer("sd")
    [ours] = renderer("sd", loras=[LoraRef(lora.sha256, lora.path, 0.7)])
    assert furthest(ours, plain) > 5
    assert furthest(ours, dense(renderer, changes, 0.7)) <= 2
    assert furthest(renderer("sd")[0], plain) <= 2


def turned(weight: torch.Tensor, blocks: torch.Tensor, strength: float, bound: float) -> torch.Tensor:
    """OFT by the book: each block of outputs times its rotation."""
    skew = blocks - blocks.transpose(1, 2)
    if bound and skew.norm() > bound:
        skew = skew * bound / skew.norm()
    found = []
    for block, part in zip(skew, weight.flatten(1).chunk(len(blocks)), strict=True):
        identity = torch.eye(len(block))
        rotation = (identity + block) @ torch.linalg.inv(identity - block)
        assert torch.allclose(rotation @ rotation.t(), identity, atol=1e-4)
        found.append((strength * (rotation - identity) + identity).t() @ part)
    return torch.cat(found).reshape(weight.shape)


@pytest.mark.parametrize(
    ("bound", "with_factors", "strength"), [(0.0, False, 1.0), (0.0, False, 0.6), (0.02, False, 1.0), (0.0, True, 1.0)]
)
def test_oft_equals_dense_arithmetic(
    renderer: Renderer, tmp_path: Path, bound: float, with_factors: bool, strength: float
) -> None:
    unet, generator = load_plain(renderer.models["sd"].folder).unet, torch.Generator().manual_seed(8)
    tensors, changes = {}, {}
    for stem, name in LAYERS.items():
        weight = _layer(unet, name).weight.data
        blocks = 0.4 * torch.randn(4, len(weight) // 4, len(weight) // 4, generator=generator)
        tensors |= {f"{stem}.oft_blocks": blocks, f"{stem}.alpha": torch.tensor(bound)}
        moved = turned(weight, blocks, strength, bound * len(weight))
        if with_factors:
            factors = 1 + torch.rand(len(weight), *[1] * (weight.dim() - 1), generator=generator)
            tensors[f"{stem}.rescale"] = factors
            moved = factors * moved
        changes[name] = moved - weight
    lora = write(tmp_path / "oft.safetensors", tensors)
    [plain] = renderer("sd")
    [ours] = renderer("sd", loras=[LoraRef(lora.sha256, lora.path, strength)])
    assert furthest(ours, plain) > 3
    assert furthest(ours, dense(renderer, changes, 1.0)) <= 2
    assert furthest(renderer("sd")[0], plain) <= 2


@pytest.mark.parametrize("beside", ["alone", "diff", "pair"])
def test_changes_of_biases_equal_dense_arithmetic(renderer: Renderer, tmp_path: Path, beside: str) -> None:
    """Of layers with a bias and without one, in the UNet and in the text encoder."""
    pipeline, generator = load_plain(renderer.models["sd"].folder), torch.Generator().manual_seed(9)
    tensors, weights, biases = {}, {}, {}
    for names, module, prefix in ((LAYERS, pipeline.unet, ""), (TEXT, pipeline.text_encoder, "te.")):
        for stem, name in names.items():
            shape = _layer(module, name).weight.shape
            biases[f"{prefix}{name}"] = tensors[f"{stem}.diff_b"] = torch.randn(shape[0], generator=generator)
            if beside == "diff":
                tensors[f"{stem}.diff"] = 0.2 * torch.randn(shape, generator=generator)
                weights[f"{prefix}{name}"] = tensors[f"{stem}.diff"]
            elif beside == "pair" and len(shape) == 2:
                down, up = (0.3 * torch.randn(*size, generator=generator) for size in ((4, shape[1]), (shape[0], 4)))
                tensors |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
                weights[f"{prefix}{name}"] = up @ down
    lora = write(tmp_path / "biases.safetensors", tensors)
    [plain] = renderer("sd")
    [ours] = renderer("sd", loras=[LoraRef(lora.sha256, lora.path, 0.5)])
    layers = {
        name: _layer(pipeline.text_encoder if name.startswith("te.") else pipeline.unet, name.removeprefix("te."))
        for name in biases
    }
    originals = {name: layer.bias for name, layer in layers.items()}
    assert None in originals.values()
    assert any(bias is not None for bias in originals.values())
    try:
        for name, layer in layers.items():
            before = 0 if layer.bias is None else layer.bias.data
            layer.bias = torch.nn.Parameter(before + 0.5 * biases[name])
        theirs = dense(renderer, weights, 0.5)
    finally:
        for name, layer in layers.items():
            layer.bias = originals[name]
    assert furthest(ours, plain) > 3
    assert furthest(ours, theirs) <= 2
    assert furthest(renderer("sd")[0], plain) <= 2


@pytest.mark.parametrize("weight", [1.0, -0.5])
def test_dora_equals_diffusers_in_both_spellings(renderer: Renderer, tmp_path: Path, weight: float) -> None:
    base, generator = renderer.models["sd"].folder, torch.Generator().manual_seed(2)
    stem, name = next(iter(LAYERS.items()))
    layer = _layer(load_plain(base).unet, name).weight
    down = torch.randn(4, layer.shape[1], generator=generator)
    up = 0.3 * torch.randn(layer.shape[0], 4, generator=generator)
    magnitude = layer.norm(dim=1) * (1 + torch.rand(layer.shape[0], generator=generator))
    names = (f"unet.{name}.lora_A.weight", f"unet.{name}.lora_B.weight", f"unet.{name}.lora_magnitude_vector")
    theirs = write(tmp_path / "peft" / "dora.safetensors", dict(zip(names, (down, up, magnitude), strict=True)))
    kohya = {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(4.0)}
    kohya["dora_scale"] = magnitude.reshape(-1, 1)
    other = write(tmp_path / "kohya.safetensors", {f"{stem}.{part}": tensor for part, tensor in kohya.items()})
    [plain] = renderer("sd")
    [ours] = renderer("sd", loras=[LoraRef(theirs.sha256, theirs.path, weight)])
    assert furthest(ours, plain) > 2
    assert furthest(ours, render_plain(base, loras=[(theirs.path, weight)])) <= 2
    assert furthest(ours, renderer("sd", loras=[LoraRef(other.sha256, other.path, weight)])[0]) <= 2


def rescaled(weight: torch.Tensor, magnitude: torch.Tensor, across: tuple[int, ...]) -> torch.Tensor:
    return weight * (magnitude / torch.linalg.vector_norm(weight, dim=across, keepdim=True))


@pytest.mark.parametrize("row", [False, True], ids=["per output", "per input"])
@pytest.mark.parametrize("name", ["loha", "lokr", "pair"])
def test_dora_of_every_format_equals_dense_arithmetic(renderer: Renderer, tmp_path: Path, name: str, row: bool) -> None:
    """One magnitude for each output, or a row of one for each input, as the same trainers wrote before."""
    unet, generator = load_plain(renderer.models["sd"].folder).unet, torch.Generator().manual_seed(3)
    tensors, changes = {}, {}
    for stem, layer in LAYERS.items():
        weight = _layer(unet, layer).weight.data
        if name == "pair":
            down = 0.3 * torch.randn(4, *weight.shape[1:], generator=generator)
            up = 0.3 * torch.randn(len(weight), 4, *[1] * (weight.dim() - 2), generator=generator)
            own, change = {"lora_down.weight": down, "lora_up.weight": up}, (up.flatten(1) @ down.flatten(1))
        else:
            own, change = FORMATS[name](weight.shape, generator)
        side, across = int(row), tuple(n for n in range(weight.dim()) if n != int(row))
        sizes = [weight.shape[n] if n == side else 1 for n in range(weight.dim())]
        magnitude = torch.linalg.vector_norm(weight, dim=across, keepdim=True) * (
            1 + torch.rand(sizes, generator=generator)
        )
        tensors |= {f"{stem}.{part}": tensor for part, tensor in {**own, "dora_scale": magnitude}.items()}
        changes[layer] = rescaled(weight + 0.7 * change.reshape(weight.shape), magnitude, across) - weight
    lora = write(tmp_path / "dora.safetensors", tensors)
    [plain] = renderer("sd")
    [ours] = renderer("sd", loras=[LoraRef(lora.sha256, lora.path, 0.7)])
    assert furthest(ours, plain) > 5
    assert furthest(ours, dense(renderer, changes, 1.0)) <= 2


def test_dora_of_a_convolution_equals_diffusers(renderer: Renderer, tmp_path: Path) -> None:
    """PEFT keeps magnitudes of outputs in a row, and proj_in has as many inputs."""
    base, generator = renderer.models["sd"].folder, torch.Generator().manual_seed(2)
    tensors = {}
    for name in list(LAYERS.values())[1:]:
        weight = _layer(load_plain(base).unet, name).weight
        outputs = len(weight)
        magnitude = weight.flatten(1).norm(dim=1) * (1 + torch.rand(outputs, generator=generator))
        tensors[f"unet.{name}.lora_A.weight"] = 0.3 * torch.randn(4, *weight.shape[1:], generator=generator)
        tensors[f"unet.{name}.lora_B.weight"] = 0.3 * torch.randn(outputs, 4, 1, 1, generator=generator)
        tensors[f"unet.{name}.lora_magnitude_vector"] = magnitude.view(1, -1, 1, 1)
    lora = write(tmp_path / "dora.safetensors", tensors)
    [ours] = renderer("sd", loras=[lora])
    assert furthest(ours, renderer("sd")[0]) > 3
    assert furthest(ours, render_plain(base, loras=[(lora.path, 1.0)])) <= 2


@pytest.mark.parametrize("name", ["loha", "lokr"])
@pytest.mark.parametrize("alpha", [float("nan"), float("inf")])
def test_an_alpha_that_is_no_number_is_said(renderer: Renderer, tmp_path: Path, name: str, alpha: float) -> None:
    """The picture would be black."""

    def make_change(shape: torch.Size, generator: torch.Generator) -> tuple[Tensors, torch.Tensor]:
        own, change = FORMATS[name](shape, generator)
        return {**own, "alpha": torch.tensor(alpha)}, change

    lora, _ = make(renderer, tmp_path / "lora.safetensors", make_change)
    with pytest.raises(LoraUnloadable, match="no numbers"):
        renderer("sd", loras=[lora])


def test_formats_mix_with_loras_and_wait_for_each_other(renderer: Renderer, tmp_path: Path) -> None:
    """Two mixes that can only be merged, a mix for slots and a plain request at once: all are what they are alone."""
    base, path = renderer.models["sd"].folder, tmp_path / "lora.safetensors"
    pair = LoraRef(make_lora(path, base, conv=True, seed=3), path, 0.5)
    first, _ = make(renderer, tmp_path / "loha.safetensors", loha)
    second, _ = make(renderer, tmp_path / "lokr.safetensors", lokr)
    mixes = [(first, pair), (second,), (pair,), (), (second, pair), (first, pair)]
    together: dict[int, NDArray[np.int16]] = {}

    def work(number: int) -> None:
        [together[number]] = renderer("sd", seeds=(number,), steps=12, loras=mixes[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(mixes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    for number, mix in enumerate(mixes):
        [alone] = renderer("sd", seeds=(number,), steps=12, loras=mix)
        assert furthest(together[number], alone) <= 2
