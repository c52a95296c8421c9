"""Pictures to begin with and masks on pipelines that are rendered whole: equal to diffusers' own classes for it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from tests.engine.conftest import Renderer
from tests.engine.pretend import PretendGpu
from tests.engine.test_batching import alone, furthest, request_for
from tests.engine.test_init import left_half, scene
from tests.engine.tiny import make_lora
from tests.engine.tiny_families import make_tiny_family
from tests.engine.tiny_flux import make_flux_lora, make_tiny_flux
from tests.engine.tiny_whole import make_tiny_chroma, make_tiny_lcm, make_tiny_pixart
from visionsuit.core.config import Offload
from visionsuit.engine.base import (
    Ability,
    EngineError,
    IncompatibleLora,
    InitPicture,
    LoraRef,
    RenderCancelled,
    RenderRequest,
    Variation,
)
from visionsuit.engine.catalog import BaseModelInfo, read_base_model
from visionsuit.engine.compat import check_lora
from visionsuit.engine.diffusers_engine import DiffusersEngine
from visionsuit.engine.header import read_header
from visionsuit.engine.samplers import create_scheduler
from visionsuit.engine.whole_init import exact_strength
from visionsuit.generation.parts import SecondPass, render_all

FAMILIES = ("Kandinsky3", "QwenImage")
SIBLINGS = {
    ("flux", False): "FluxImg2ImgPipeline",
    ("flux", True): "FluxInpaintPipeline",
    ("chroma", False): "ChromaImg2ImgPipeline",
    ("lcm", False): "LatentConsistencyModelImg2ImgPipeline",
    ("Kandinsky3", False): "Kandinsky3Img2ImgPipeline",
    ("QwenImage", False): "QwenImageImg2ImgPipeline",
    ("QwenImage", True): "QwenImageInpaintPipeline",
}


@pytest.fixture(scope="module")
def infos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BaseModelInfo]:
    folder = tmp_path_factory.mktemp("whole_init")
    makers = {"flux": make_tiny_flux, "chroma": make_tiny_chroma, "lcm": make_tiny_lcm, "pixart": make_tiny_pixart}
    infos = {name: read_base_model(make(folder / name)) for name, make in makers.items()}
    return infos | {name: read_base_model(make_tiny_family(folder / name, name)) for name in FAMILIES}


@pytest.fixture
def renderer(engine: DiffusersEngine, infos: dict[str, BaseModelInfo]) -> Renderer:
    return Renderer(engine, infos)


def ask(renderer: Renderer, model: str = "flux", **changes: object) -> RenderRequest:
    sampler = {"lcm": "lcm", "Kandinsky3": "dpmpp_2m"}.get(model, "euler")
    return request_for(renderer, model, sampler=sampler, schedule="default", steps=4, **changes)


def expected(folder: Path, name: str, request: RenderRequest, strength: float) -> NDArray[np.int16]:
    """What diffusers makes of the first picture, without pasting."""
    init = request.init
    assert init is not None
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    absent = {part: None for part, value in index.items() if isinstance(value, list) and not any(value)}
    pipeline: Any = getattr(diffusers, name).from_pretrained(folder, local_files_only=True, **absent)
    pipeline.set_progress_bar_config(disable=True)
    options: dict[str, Any] = {"guidance_scale": request.guidance}
    if name.startswith("Qwen"):
        options = {"true_cfg_scale": request.guidance, "negative_prompt": " "}
    if not name.startswith(("Latent", "Kandinsky")):
        options |= {"height": 64, "width": 64}
    if name.startswith("Kandinsky"):
        pipeline.scheduler = create_scheduler(dict(pipeline.scheduler.config), request.sampler, request.schedule)
    if init.mask is not None:
        options["mask_image"] = Image.fromarray((init.mask * 255).astype(np.uint8))
    for lora in request.loras:
        pipeline.load_lora_weights(str(lora.path.parent), weight_name=lora.path.name, adapter_name="a")
        pipeline.set_adapters(["a"], [lora.weight])
    image = pipeline(
        request.prompt, image=Image.fromarray(init.pixels), strength=strength, num_inference_steps=request.steps,
        generator=torch.Generator().manual_seed(request.seeds[0]), output_type="np",
        **options,
    ).images[0]  # fmt: skip
    return (image * 255).round().astype(np.int16)


@pytest.mark.parametrize(("model", "masked"), SIBLINGS)
def test_equal_to_diffusers(renderer: Renderer, model: str, masked: bool) -> None:
    folder = renderer.models[model].folder
    for strength, exact in ((0.5, 0.5), (0.8, 0.75), (1.0, 1.0)):
        init = InitPicture(scene(), strength, left_half() if masked else None)
        request = ask(renderer, model, init=init)
        [picture] = alone(renderer, request)
        reference = expected(folder, SIBLINGS[model, masked], request, exact)
        changed = slice(0, 32) if masked else slice(0, 64)
        assert furthest(picture[:, changed], reference[:, changed]) <= 2, strength
        if masked:
            assert np.array_equal(picture[:, 32:], scene()[:, 32:])
            assert furthest(picture[:, :32], scene()[:, :32].astype(np.int16)) > 10


@pytest.mark.parametrize("model", ["flux", "chroma"])
def test_with_loras(renderer: Renderer, tmp_path: Path, model: str) -> None:
    path, folder = tmp_path / "a.safetensors", renderer.models[model].folder
    lora = LoraRef(make_flux_lora(path, folder, alpha=2), path, 0.8)
    request = ask(renderer, model, init=InitPicture(scene(), 0.75), loras=(lora,))
    [picture] = alone(renderer, request)
    assert furthest(picture, expected(folder, SIBLINGS[model, False], request, 0.75)) <= 2
    assert furthest(picture, alone(renderer, replace(request, loras=()))[0]) > 10


def test_unet_loras_of_consistency_models(renderer: Renderer, tmp_path: Path) -> None:
    folder = renderer.models["lcm"].folder
    for kind in ("kohya", "diffusers"):
        path = tmp_path / f"{kind}.safetensors"
        sha256 = make_lora(path, folder, kind=kind, text_encoder=True, conv=kind == "kohya", alpha=2)  # type: ignore[arg-type]
        request = ask(renderer, "lcm", init=InitPicture(scene(), 0.75), loras=(LoraRef(sha256, path, 0.6),))
        [picture] = alone(renderer, request)
        assert furthest(picture, expected(folder, SIBLINGS["lcm", False], request, 0.75)) <= 2
        assert furthest(picture, alone(renderer, replace(request, loras=()))[0]) > 10


def test_every_picture_begins_with_its_own(renderer: Renderer) -> None:
    pixels = np.stack([scene(0), scene(1)])
    mask = np.full((64, 64), 0.5, np.float32)
    both = alone(renderer, ask(renderer, seeds=(1, 2), init=InitPicture(pixels, 0.5, mask)))
    for number, picture in enumerate(both):
        one = ask(renderer, seeds=(number + 1,), init=InitPicture(pixels[number], 0.5, mask))
        assert np.array_equal(picture, alone(renderer, one)[0])
        whole = alone(renderer, replace(one, init=InitPicture(pixels[number], 0.5, np.ones((64, 64), np.float32))))[0]
        assert furthest(picture, (whole + pixels[number].astype(np.int16)) // 2) <= 1


def test_a_thin_mask_repaints(renderer: Renderer) -> None:
    mask = np.zeros((64, 64), np.float32)
    mask[:, 35] = 1
    [picture] = alone(renderer, ask(renderer, init=InitPicture(scene(), 1.0, mask)))
    assert np.array_equal(np.delete(picture, 35, 1), np.delete(scene(), 35, 1))
    assert furthest(picture[:, 35], scene()[:, 35].astype(np.int16)) > 10


def test_a_second_pass(renderer: Renderer) -> None:
    request, second = ask(renderer), SecondPass(96, 96, steps=4, strength=0.5)
    steps: list[int] = []
    [picture] = render_all(
        renderer.engine,
        [request],
        second=[second],
        on_progress=lambda progress: steps.append(progress.step),
        is_cancelled=lambda: False,
    )
    assert picture.pixels.shape == (96, 96, 3)
    assert steps[-1] == 6
    assert steps == sorted(steps)


def test_a_cancel_takes_effect_within_a_step(renderer: Renderer) -> None:
    init = InitPicture(scene(), 0.9)
    [before] = alone(renderer, ask(renderer, init=init))
    seen: list[int] = []
    with pytest.raises(RenderCancelled):
        renderer.engine.render(
            replace(ask(renderer, init=init), steps=500),
            on_progress=lambda progress: seen.append(progress.step),
            is_cancelled=lambda: bool(seen) and seen[-1] > 2,
        )
    assert seen[-1] < 400
    assert np.array_equal(alone(renderer, ask(renderer, init=init))[0], before)


def test_no_second_copy_of_a_weight(renderer: Renderer) -> None:
    alone(renderer, ask(renderer, init=InitPicture(scene(), 0.5, left_half())))
    driver = renderer.engine._driver
    assert driver is not None
    [model] = [model for model in driver.models.all if model.key == renderer.models["flux"].key]
    pipelines = [model.siblings.of(init) for init in (None, InitPicture(scene(), 1.0))]  # type: ignore[union-attr]
    for name, part in pipelines[0].components.items():
        if name != "scheduler":
            assert pipelines[1].components[name] is part


def test_where_parts_come_and_go(renderer: Renderer, infos: dict[str, BaseModelInfo], tmp_path: Path) -> None:
    """Through diffusers' hooks, which belong to one of the pipelines over the parts."""
    path = tmp_path / "a.safetensors"
    lora = LoraRef(make_flux_lora(path, infos["flux"].folder), path, 0.8)
    requests = [
        ask(renderer, init=init, loras=loras)
        for init in (None, InitPicture(scene(), 0.5), InitPicture(scene(), 0.5, left_half()))
        for loras in ((), (lora,))
    ]
    engine = DiffusersEngine(PretendGpu("cpu", "Pretended", size=10**9), threads=1, offload=Offload.ALWAYS)
    engine.start()
    ours = Renderer(engine, infos)
    for request in requests:
        assert np.array_equal(alone(ours, request)[0], alone(renderer, request)[0])
    engine.close()


def test_what_each_can_do(renderer: Renderer, tmp_path: Path) -> None:
    """Is listed, and what is not is refused in words."""
    most = (Ability.LORAS, Ability.PICTURES, Ability.MASKS)
    able = {"flux": most, "chroma": most[:2], "lcm": most[:2], "pixart": ()}
    able |= {"Kandinsky3": most[:2], "QwenImage": most}
    assert {name: info.abilities for name, info in renderer.models.items()} == able
    assert read_base_model(renderer.models["lcm"].folder).as_json()["abilities"] == ["loras", "pictures"]
    path = tmp_path / "a.safetensors"
    lora = LoraRef(make_flux_lora(path, renderer.models["flux"].folder), path, 1.0)
    refused: list[tuple[str, str, dict[str, Any]]] = [
        ("pixart", "takes no LoRAs", {"loras": (lora,)}),
        ("pixart", "renders from a prompt alone", {"init": InitPicture(scene(), 0.5)}),
        ("lcm", "without a mask", {"init": InitPicture(scene(), 0.5, left_half())}),
        ("flux", "renders no variations", {"variation": Variation((1,), 0.5)}),
        ("flux", "must be uint8 of the shape", {"init": InitPicture(scene(side=32), 0.5)}),
        ("flux", "strength must be over 0", {"init": InitPicture(scene(), 0.0)}),
    ]
    for model, said, changes in refused:
        with pytest.raises(EngineError, match=said):
            renderer.engine.render(
                ask(renderer, model, **changes), on_progress=lambda _: None, is_cancelled=lambda: False
            )
    with pytest.raises(IncompatibleLora, match="takes no LoRAs"):
        check_lora(read_header(path), renderer.models["pixart"].folder)


def test_the_strength_says_how_many_steps() -> None:
    for steps in range(1, 151):
        for run in range(1, steps + 1):
            strength = exact_strength(steps, run, rounds_down=True)
            assert int(steps * strength) == run
            assert strength <= 1
            strength = exact_strength(steps, run, rounds_down=False)
            assert steps - int(steps - min(steps * strength, steps)) == run
