"""LoRAs on a pipeline that is rendered whole: what diffusers makes of them, request by request, and nothing besides."""

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from tests.engine.conftest import Renderer
from tests.engine.test_batching import alone, furthest, request_for
from tests.engine.test_init import left_half, scene
from tests.engine.test_whole import EULER
from tests.engine.tiny_flux import make_flux_lora
from visionsuit.engine.base import InitPicture, LoraRef, LoraUnloadable, RenderCancelled
from visionsuit.engine.change_sizes import measure
from visionsuit.engine.compat import check_lora, describe_lora, read_base_shapes
from visionsuit.engine.header import read_header
from visionsuit.engine.whole import WholeModel
from visionsuit.engine.whole_loras import MOST_KEPT

_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def lora(path: Path, flux: Path, weight: float = 1.0, text: float | None = None, **options: Any) -> LoraRef:
    return LoraRef(make_flux_lora(path, flux, **options), path, weight, text)


@lru_cache(maxsize=1)
def load_plain(folder: Path) -> Any:
    plain = DiffusionPipeline.from_pretrained(folder, local_files_only=True, image_encoder=None, feature_extractor=None)
    plain.set_progress_bar_config(disable=True)
    return plain


def expected(flux: Path, loras: list[LoraRef], prompt: str = "a red cat") -> NDArray[np.int16]:
    """diffusers, as its documentation says."""
    plain = load_plain(flux)
    names = [f"a{number}" for number in range(len(loras))]
    for name, one in zip(names, loras, strict=True):
        plain.load_lora_weights(str(one.path.parent), weight_name=one.path.name, adapter_name=name)
    if loras:
        parts = [{"transformer": one.weight, "text_encoder": one.text_encoder_weight} for one in loras]
        weights = [one.weight if part["text_encoder"] is None else part for one, part in zip(loras, parts, strict=True)]
        plain.set_adapters(names, weights)
    try:
        image = plain(
            prompt, height=64, width=64, num_inference_steps=4, guidance_scale=4.0, output_type="np",
            generator=torch.Generator().manual_seed(7),
        ).images[0]  # fmt: skip
    finally:
        plain.unload_lora_weights()
    return (image * 255).round().astype(np.int16)


def model_of(renderer: Renderer) -> WholeModel:
    driver = renderer.engine._driver
    assert driver is not None
    [model] = [model for model in driver.models.all if model.key == renderer.models["flux"].key]
    assert isinstance(model, WholeModel)
    return model


@contextmanager
def base_kept(renderer: Renderer) -> Iterator[None]:
    """Once nothing is loaded any more, the pipeline is what it was, to the last bit and the last name."""
    renderer("flux", steps=1, **EULER)
    model = model_of(renderer)

    def weights() -> dict[str, torch.Tensor]:
        model.loras.free_memory()
        modules = {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
        return {f"{name}.{key}": own for name, part in modules.items() for key, own in part.state_dict().items()}

    pipeline = model.siblings.of(None)
    before = {name: own.clone() for name, own in weights().items()}
    yield
    after = weights()
    assert before.keys() == after.keys()
    assert all(torch.equal(own, after[name]) for name, own in before.items())


@pytest.mark.parametrize("spelling", ["diffusers", "kohya"])
@pytest.mark.parametrize("text", [False, True])
def test_equal_to_diffusers(renderer: Renderer, flux: Path, tmp_path: Path, spelling: Any, text: bool) -> None:
    """Weights apart, alphas, negative weights, and a mix of two."""
    one = lora(
        tmp_path / "one.safetensors", flux, 0.8, 0.4 if text else None, spelling=spelling, text_encoder=text, alpha=2
    )
    two = lora(tmp_path / "two.safetensors", flux, -0.6, spelling=spelling, seed=5, rank=2)
    bare = renderer("flux", "a red cat", **EULER)[0]
    for mix in ([one], [two], [one, two]):
        picture = renderer("flux", "a red cat", loras=mix, **EULER)[0]
        assert furthest(picture, expected(flux, mix)) <= 2
        assert furthest(picture, bare) > 10
    assert np.array_equal(renderer("flux", "a red cat", **EULER)[0], bare)


def test_the_text_encoder_is_heard(renderer: Renderer, flux: Path, tmp_path: Path) -> None:
    path = tmp_path / "text.safetensors"
    sha256 = make_flux_lora(path, flux, text_encoder=True, only="text_model", strength=8)
    own = LoraRef(sha256, path, 0.0, 1.0)
    bare = renderer("flux", "a red cat", **EULER)[0]
    picture = renderer("flux", "a red cat", loras=[own], **EULER)[0]
    assert furthest(picture, bare) > 2
    assert furthest(picture, expected(flux, [own])) <= 2
    assert np.array_equal(renderer("flux", "a red cat", loras=[LoraRef(sha256, path, 1.0, 0.0)], **EULER)[0], bare)


@pytest.mark.parametrize(("first", "second"), [("kohya", "comfy"), ("diffusers", "peft")])
def test_spellings_of_one_file_are_one_picture(
    renderer: Renderer, flux: Path, tmp_path: Path, first: Any, second: Any
) -> None:
    pictures = [
        renderer("flux", loras=[lora(tmp_path / f"{spelling}.safetensors", flux, spelling=spelling)], **EULER)[0]
        for spelling in (first, second)
    ]
    assert furthest(*pictures) <= 1


def test_layers_that_are_four_in_diffusers_are_split(renderer: Renderer, flux: Path, tmp_path: Path) -> None:
    """At any width, and the last layer with the halves of its outputs the other way round."""
    generator = torch.Generator().manual_seed(3)
    shapes = {"linear1": (32, [32, 32, 32, 128]), "final_layer.adaLN_modulation.1": (32, [32, 32])}
    own: dict[str, torch.Tensor] = {}
    theirs: dict[str, torch.Tensor] = {}
    for name, (inputs, outputs) in shapes.items():
        down = torch.randn(4, inputs, generator=generator) / 6
        ups = [torch.randn(rows, 4, generator=generator) for rows in outputs]
        stem = f"lora_unet_{'single_blocks_0_' if name == 'linear1' else ''}{name.replace('.', '_')}"
        own |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": torch.cat(ups)}
        if name == "linear1":
            for part, up in zip(("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"), ups, strict=True):
                stem = f"transformer.single_transformer_blocks.0.{part}"
                theirs |= {f"{stem}.lora_A.weight": down.clone(), f"{stem}.lora_B.weight": up}
        else:
            stem = "transformer.norm_out.linear"
            theirs |= {f"{stem}.lora_A.weight": down.clone(), f"{stem}.lora_B.weight": torch.cat(ups[::-1])}
    refs = []
    for name, tensors in (("own", own), ("theirs", theirs)):
        path = tmp_path / f"{name}.safetensors"
        save_file(tensors, path)
        refs.append(LoraRef(hashlib.sha256(path.read_bytes()).hexdigest(), path, 1.0))
    picture = renderer("flux", "a red cat", loras=refs[:1], **EULER)[0]
    assert furthest(picture, expected(flux, refs[1:])) <= 2
    assert furthest(picture, renderer("flux", "a red cat", **EULER)[0]) > 10


def test_many_switches_leave_nothing_behind(renderer: Renderer, flux: Path, tmp_path: Path) -> None:
    """Requests with other mixes, and more files than are kept, take turns."""
    with base_kept(renderer):
        refs = [
            lora(tmp_path / f"{n}.safetensors", flux, 0.7, seed=n, text_encoder=n % 2 == 0)
            for n in range(MOST_KEPT + 2)
        ]
        mixes = [[], *([ref] for ref in refs), refs[:2], refs[-3:]]
        first = [renderer("flux", loras=mix, **EULER)[0] for mix in mixes]
        assert len(model_of(renderer).loras) <= MOST_KEPT
        for mix, picture in [*zip(mixes, first, strict=True)][::-1]:
            assert np.array_equal(renderer("flux", loras=mix, **EULER)[0], picture)
        assert len({picture.tobytes() for picture in first}) == len(mixes)
        larger = refs[: MOST_KEPT + 1]
        assert np.array_equal(renderer("flux", loras=larger, **EULER)[0], renderer("flux", loras=larger, **EULER)[0])
        assert np.array_equal(renderer("flux", **EULER)[0], first[0])


def test_two_requests_at_once_have_their_own(renderer: Renderer, flux: Path, tmp_path: Path) -> None:
    mixes = [[lora(tmp_path / "a.safetensors", flux)], [lora(tmp_path / "b.safetensors", flux, seed=9)], []]
    seeds = (1, 2, 3)
    apart = [renderer("flux", seeds=seeds, loras=mix, **EULER) for mix in mixes]
    with ThreadPoolExecutor(3) as threads:
        together = list(threads.map(lambda mix: renderer("flux", seeds=seeds, loras=mix, **EULER), mixes))
    for ours, theirs in zip(together, apart, strict=True):
        assert np.array_equal(ours, theirs)


def test_weight_zero_is_no_lora(renderer: Renderer, flux: Path, tmp_path: Path) -> None:
    one = lora(tmp_path / "one.safetensors", flux, 0.0)
    two = lora(tmp_path / "two.safetensors", flux, 0.5, seed=2)
    bare = renderer("flux", **EULER)[0]
    loaded = len(model_of(renderer).loras)
    assert np.array_equal(renderer("flux", loras=[one], **EULER)[0], bare)
    assert len(model_of(renderer).loras) == loaded
    assert np.array_equal(renderer("flux", loras=[one, two], **EULER)[0], renderer("flux", loras=[two], **EULER)[0])


def test_a_cancel_leaves_nothing_behind(renderer: Renderer, flux: Path, tmp_path: Path) -> None:
    bare = renderer("flux", **EULER)[0]
    seen: list[int] = []
    with pytest.raises(RenderCancelled):
        renderer(
            "flux",
            steps=500,
            loras=[lora(tmp_path / "one.safetensors", flux)],
            on_progress=lambda progress: seen.append(progress.step),
            is_cancelled=lambda: bool(seen) and seen[-1] > 2,
            **EULER,
        )
    assert seen[-1] < 450
    assert np.array_equal(renderer("flux", **EULER)[0], bare)


def broken(tmp_path: Path, flux: Path) -> dict[str, tuple[Path, str]]:
    """Files that look like LoRAs for it, and what is said of them."""
    make_flux_lora(tmp_path / "good.safetensors", flux)
    good = load_file(tmp_path / "good.safetensors")
    first, other = sorted(good)[0], "transformer.single_transformer_blocks.0.attn.to_q"
    wide = {name: torch.cat([own, own], 1) if "lora_A" in name else own for name, own in good.items()}
    words = "text_encoder.text_model.embeddings.token_embedding"
    files = {
        "nan": (good | {first: good[first] * float("nan")}, "holds values that are no numbers"),
        "wide": (wide, "takes 64 inputs where the base model has 32"),
        "half": ({name: own for name, own in good.items() if "lora_A" in name}, "only one half of its pair"),
        "dora": (good | {f"{other}.lora_magnitude_vector": torch.ones(31)}, "has 31 magnitudes, which fit neither"),
        "loha": (
            {f"{other}.hada_{part}": torch.ones(*size) for part, size in
             (("w1_a", (32, 2)), ("w1_b", (2, 32)), ("w2_a", (32, 2)), ("w2_b", (2, 31)))},
            "matrices that make no whole",
        ),
        "elsewhere": ({name.replace("blocks.0", "blocks.7"): own for name, own in good.items()}, "are not in the base"),
        "words": (
            {f"{words}.lora_{half}.weight": torch.ones(4, 4) for half in "AB"},
            "are not in the base",
        ),
        "no_lora": ({"some.weight": torch.ones(2, 2)}, "holds no LoRA weights"),
    }  # fmt: skip
    made = {}
    for name, (tensors, said) in files.items():
        save_file({key: own.contiguous() for key, own in tensors.items()}, tmp_path / f"{name}.safetensors")
        made[name] = (tmp_path / f"{name}.safetensors", said)
    return made


def test_a_bad_file_harms_nobody(renderer: Renderer, flux: Path, tmp_path: Path) -> None:
    good = lora(tmp_path / "fine.safetensors", flux)
    with base_kept(renderer):
        first = [renderer("flux", loras=mix, **EULER)[0] for mix in ([good], [])]
        begun, ended = threading.Event(), threading.Event()

        def beside() -> list[NDArray[np.int16]]:
            begun.set()
            pictures = []
            while not (ended.is_set() and len(pictures) > 2):
                pictures += renderer("flux", loras=[good], **EULER)
            return pictures

        with ThreadPoolExecutor(1) as threads:
            other = threads.submit(beside)
            begun.wait(30)
            try:
                for name, (path, said) in broken(tmp_path, flux).items():
                    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
                    with pytest.raises(LoraUnloadable, match=f"{name}.safetensors.*{said}"):
                        renderer("flux", loras=[good, LoraRef(sha256, path, 1.0)], **EULER)
            finally:
                ended.set()
            assert all(np.array_equal(picture, first[0]) for picture in other.result())
        with pytest.raises(LoraUnloadable, match="not the file that its checksum names"):
            renderer("flux", loras=[LoraRef("0" * 64, good.path, 1.0)], **EULER)
        for mix, picture in zip(([good], []), first, strict=True):
            assert np.array_equal(renderer("flux", loras=mix, **EULER)[0], picture)


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_in_half_precision(renderer: Renderer, flux: Path, tmp_path: Path, dtype: str) -> None:
    """Adapters calculate in the pipeline's number format, whatever their files are in."""
    info = renderer.models["flux"]
    request = request_for(renderer, "flux", sampler="euler", schedule="default", steps=4)
    request = replace(request, loras=(lora(tmp_path / "one.safetensors", flux, 0.5, text_encoder=True),))
    full = alone(renderer, request)[0]
    half = replace(request, base_model=info.ref.in_dtype(dtype))
    begun = replace(half, init=InitPicture(scene(), 0.5, left_half()))
    assert np.abs(alone(renderer, half)[0] - full).mean() < 6
    assert alone(renderer, begun)[0].shape == full.shape
    driver = renderer.engine._driver
    assert driver is not None
    [model] = [model for model in driver.models.all if model.key == half.base_model.key]
    assert isinstance(model, WholeModel)
    transformer = model.siblings.of(None).transformer
    assert {own.dtype for own in transformer.parameters()} == {_DTYPES[dtype]}
    assert any("lora_A" in name for name, _ in transformer.named_parameters())


def test_the_meter_knows_a_layer_under_every_name(flux: Path, tmp_path: Path) -> None:
    """What one spelling has as one layer is three of the other's."""
    generator = torch.Generator().manual_seed(1)
    ups = [torch.randn(32, 4, generator=generator) for _ in range(3)]
    down = torch.randn(4, 32, generator=generator)
    stem, other = "lora_unet_double_blocks_0_img_attn_qkv", "transformer.transformer_blocks.0.attn.to_{}"
    kohya = {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": torch.cat(ups)}
    theirs: dict[str, torch.Tensor] = {}
    for part, up in zip("qkv", ups, strict=True):
        theirs |= {f"{other.format(part)}.lora_A.weight": down.clone(), f"{other.format(part)}.lora_B.weight": up}
    paths = [tmp_path / "kohya.safetensors", tmp_path / "theirs.safetensors"]
    for path, tensors in zip(paths, (kohya, theirs), strict=True):
        save_file(tensors, path)
    measured = measure(paths, read_base_shapes(flux))
    assert measured.changes[0].squares == pytest.approx(measured.changes[1].squares)
    assert measured.products[0, 1] == pytest.approx(measured.changes[0].squares)
    assert len(measured.products[0, 1]) == 3


def test_the_header_says_whether_it_fits(flux: Path, tmp_path: Path) -> None:
    for spelling in ("diffusers", "kohya", "comfy", "peft"):
        path = tmp_path / f"{spelling}.safetensors"
        make_flux_lora(path, flux, spelling, text_encoder=spelling != "peft", wide=True)
        header = read_header(path)
        fit = check_lora(header, flux)
        assert not fit.absent
        assert not fit.unknown
        assert describe_lora(header).family == "flux"
