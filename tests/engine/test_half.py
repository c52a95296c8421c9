"""Half precision, on the CPU: the same paths as on a GPU, in the number format that an administrator chose."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.engine.conftest import Renderer
from tests.engine.test_batching import Call, Pixels, alone, init_of, request_for
from tests.engine.test_lora_formats import FORMATS, LAYERS, make, write
from tests.engine.test_whole import EULER
from tests.engine.tiny import make_lora, make_sdxl_topology, make_tiny_sdxl
from tests.engine.tiny_sd3 import make_tiny_sd3
from visionsuit.engine.base import BaseModelRef, LoraRef, RenderRequest
from visionsuit.engine.catalog import BaseModelInfo, read_base_model
from visionsuit.engine.diffusers_engine import DiffusersEngine

#: Least ratio of signal to noise, in dB.
BAR = 40.0

pytestmark = pytest.mark.parametrize("dtype", ["fp16", "bf16"])


def psnr(one: Pixels, other: Pixels) -> float:
    error = float(((one.astype(np.float64) - other) ** 2).mean())
    return 10 * float(np.log10(255**2 / max(error, 1e-9)))


@pytest.fixture(scope="module")
def half_models(models: dict[str, BaseModelInfo], tmp_path_factory: pytest.TempPathFactory) -> dict[str, BaseModelInfo]:
    folder = tmp_path_factory.mktemp("half")
    return {
        **models,
        "topology": read_base_model(make_sdxl_topology(folder / "topology")),
        "sd3": read_base_model(make_tiny_sd3(folder / "sd3", t5=True)),
    }


@pytest.fixture
def renderer(engine: DiffusersEngine, half_models: dict[str, BaseModelInfo]) -> Renderer:
    return Renderer(engine, half_models)


@pytest.fixture
def in_half(renderer: Renderer, dtype: str) -> Callable[..., RenderRequest]:
    """`in_half("sd", seeds=(1,))`: a request in the number format."""

    def make_request(model: str, **changes: Any) -> RenderRequest:
        ref = renderer.models[model].ref.in_dtype(dtype)
        return replace(request_for(renderer, model), base_model=ref, **changes)

    return make_request


def in_full(renderer: Renderer, request: RenderRequest) -> list[Pixels]:
    """The same request in fp32."""
    return alone(renderer, replace(request, base_model=request.base_model.in_dtype("auto")))


def loras_for(renderer: Renderer, model: str, folder: Path) -> list[LoraRef]:
    """Of a strength as trainers reach; random ones as strong as the weights blow every rounding up."""
    made = []
    for number, options in enumerate(({"conv": True}, {"kind": "diffusers", "text_encoder": True, "rank": 8})):
        path = folder / f"{model}{number}.safetensors"
        sha256 = make_lora(path, renderer.models[model].folder, seed=number, strength=0.3, **options)  # type: ignore[arg-type]
        made.append(LoraRef(sha256, path, 0.8))
    return made


def together(renderer: Renderer, requests: Sequence[RenderRequest]) -> list[list[Pixels]]:
    calls = [Call(renderer.engine, request).start() for request in requests]
    return [call.join() for call in calls]


@pytest.mark.parametrize("model", ["sd", "topology"])
def test_mixes_in_one_batch_are_what_they_are_alone(
    renderer: Renderer, in_half: Callable[..., RenderRequest], tmp_path: Path, model: str
) -> None:
    one, two = loras_for(renderer, model, tmp_path)
    requests = [
        in_half(model, steps=4, seeds=(1,)),
        in_half(model, steps=4, seeds=(2,), loras=(one,)),
        in_half(model, steps=4, seeds=(3,), loras=(one, replace(two, weight=-0.5)), guidance=6.0),
        in_half(model, steps=4, seeds=(4,), loras=(two,), init=init_of(64, 0.8, True), prompt="blue heart"),
    ]
    expected = [alone(renderer, request)[0] for request in requests]
    before = renderer.engine.status().extra["unet_calls"]
    pictures = [made[0] for made in together(renderer, requests)]
    assert renderer.engine.status().extra["unet_calls"] - before < 12, "they did not share their calls"
    assert min(map(psnr, pictures, expected)) >= BAR
    # A mix is another picture altogether.
    assert psnr(pictures[1], alone(renderer, replace(requests[1], loras=()))[0]) < 25
    # Merged, as alone, and in slots: neither is far from full precision.
    assert psnr(expected[1], in_full(renderer, requests[1])[0]) >= BAR
    assert psnr(pictures[1], in_full(renderer, requests[1])[0]) >= BAR


def test_a_sensitive_model_loses_no_more_in_a_batch_than_by_half_precision(
    renderer: Renderer, in_half: Callable[..., RenderRequest], tmp_path: Path
) -> None:
    """Roundings of the tiny SDXL's weights alone make other pictures of 30 dB."""
    one, two = loras_for(renderer, "sdxl", tmp_path)
    requests = [in_half("sdxl", seeds=(1,), loras=(one,)), in_half("sdxl", seeds=(2,), loras=(one, two))]
    expected = [alone(renderer, request)[0] for request in requests]
    lost = min(
        psnr(picture, in_full(renderer, request)[0]) for picture, request in zip(expected, requests, strict=True)
    )
    pictures = [made[0] for made in together(renderer, requests)]
    assert min(map(psnr, pictures, expected)) >= min(BAR, lost - 3)


def test_many_switches_leave_the_model_bit_for_bit(
    renderer: Renderer, in_half: Callable[..., RenderRequest], tmp_path: Path
) -> None:
    one, two = loras_for(renderer, "sd", tmp_path)
    before = alone(renderer, in_half("sd"))
    for number in range(3):
        mixes = [(replace(one, weight=0.1 * number),), (two,), (one, two)]
        together(renderer, [in_half("sd", loras=mix, seeds=(n,)) for n, mix in enumerate(mixes)])
        alone(renderer, in_half("sd", loras=mixes[number % 3]))
    assert np.array_equal(alone(renderer, in_half("sd")), before)


@pytest.mark.parametrize("name", ["lokr", "loha", "full"])
def test_what_only_merges_is_close_to_full_precision(
    renderer: Renderer, in_half: Callable[..., RenderRequest], tmp_path: Path, name: str
) -> None:
    lora = replace(make(renderer, tmp_path / "a.safetensors", FORMATS[name])[0], weight=0.3)
    request = in_half("sd", loras=(lora,))
    [ours] = alone(renderer, request)
    assert psnr(ours, alone(renderer, in_half("sd"))[0]) < BAR
    assert psnr(ours, in_full(renderer, request)[0]) >= BAR - 2


def test_dora_is_close_to_full_precision(
    renderer: Renderer, in_half: Callable[..., RenderRequest], tmp_path: Path
) -> None:
    weights = load_file(renderer.models["sd"].folder / "unet" / "diffusion_pytorch_model.safetensors")
    generator, (stem, name) = torch.Generator().manual_seed(2), next(iter(LAYERS.items()))
    layer = weights[f"{name}.weight"]
    tensors = {
        f"{stem}.lora_down.weight": torch.randn(4, layer.shape[1], generator=generator),
        f"{stem}.lora_up.weight": 0.3 * torch.randn(layer.shape[0], 4, generator=generator),
        f"{stem}.alpha": torch.tensor(4.0),
        f"{stem}.dora_scale": layer.norm(dim=1, keepdim=True) * 1.5,
    }
    request = in_half("sd", loras=(write(tmp_path / "dora.safetensors", tensors),))
    [ours] = alone(renderer, request)
    assert psnr(ours, alone(renderer, in_half("sd"))[0]) < BAR
    assert psnr(ours, in_full(renderer, request)[0]) >= BAR - 2


def test_a_vae_that_overflows_is_calculated_in_full(engine: DiffusersEngine, dtype: str, tmp_path: Path) -> None:
    """As SDXL's does in fp16, and so it says."""
    folder = make_tiny_sdxl(tmp_path / "sdxl")
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    for name in ("decoder.conv_in.weight", "encoder.conv_in.weight"):
        weights[name] = weights[name] * 2e5
    save_file(weights, file, metadata={"format": "pt"})
    renderer = Renderer(engine, {"sdxl": read_base_model(folder)})
    for init in (None, init_of(64, 0.5, False)):
        request = request_for(renderer, "sdxl", steps=2, init=init)
        expected = alone(renderer, request)[0]
        assert expected.std() > 5
        half = alone(renderer, replace(request, base_model=request.base_model.in_dtype(dtype)))[0]
        assert psnr(half, expected) > 20


def test_sd3_and_a_unet_for_inpainting(renderer: Renderer, in_half: Callable[..., RenderRequest]) -> None:
    for request in (in_half("sd3", **EULER), in_half("inpainting", init=init_of(64, 0.8, True))):
        assert psnr(alone(renderer, request)[0], in_full(renderer, request)[0]) > 35


def test_number_formats_are_not_mixed(renderer: Renderer, in_half: Callable[..., RenderRequest], dtype: str) -> None:
    """Two of one model at once: each in its own, and what comes later finds it."""
    half, full = in_half("sd", steps=8), request_for(renderer, steps=8)
    expected = [alone(renderer, request)[0] for request in (half, full)]
    assert not np.array_equal(*expected)
    assert all(
        np.array_equal(made[0], one) for made, one in zip(together(renderer, [half, full]), expected, strict=True)
    )
    found = {model.key: model for model in renderer.engine.models}
    assert found[half.base_model.key].unet.dtype is {"fp16": torch.float16, "bf16": torch.bfloat16}[dtype]
    assert found[full.base_model.key].unet.dtype is torch.float32


def test_a_format_of_a_format_is_that_one(dtype: str) -> None:
    plain = BaseModelRef("abc", Path("x"), None)  # type: ignore[arg-type]
    other = plain.in_dtype("fp32").in_dtype(dtype)
    assert (other.key, other.dtype) == (f"abc-{dtype}", dtype)
    assert other.in_dtype("auto") == plain
