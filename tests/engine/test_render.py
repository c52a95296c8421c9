import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    UniPCMultistepScheduler,
)

from tests.engine.conftest import Renderer
from tests.engine.plain import load_plain, render_plain
from tests.engine.test_batching import Call, request_for
from tests.engine.tiny import DEMO, make_tiny_sd
from visionsuit.engine.base import SAMPLERS, SCHEDULES, EngineError, Phase, Progress, RenderCancelled
from visionsuit.engine.catalog import read_base_model
from visionsuit.engine.diffusers_engine import DiffusersEngine
from visionsuit.engine.samplers import create_scheduler, start_scheduler

FAMILIES = ("sd", "sdxl", "demo")


def furthest(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one - other).max())


@pytest.mark.parametrize("model", FAMILIES)
@pytest.mark.parametrize(("guidance", "negative"), [(4.0, ""), (4.0, "blue square"), (1.0, "")])
def test_equals_the_plain_pipeline(renderer: Renderer, model: str, guidance: float, negative: str) -> None:
    [ours] = renderer(model, negative_prompt=negative, guidance=guidance)
    plain = render_plain(renderer.models[model].folder, negative_prompt=negative or None, guidance=guidance)
    assert ours.std() > 5
    assert furthest(ours, plain) <= 2


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_equals_the_plain_pipeline(renderer: Renderer, sampler: str) -> None:
    [ours] = renderer("demo", sampler=sampler, steps=5)
    assert furthest(ours, render_plain(renderer.models["demo"].folder, sampler=sampler, steps=5)) <= 2


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_and_schedule_draws_the_red_heart(renderer: Renderer, sampler: str) -> None:
    wanted = [request_for(renderer, "demo", sampler=sampler, schedule=schedule, steps=8) for schedule in SCHEDULES]
    # All at once: they share their calls, which takes half the time.
    calls = [Call(renderer.engine, request).start() for request in wanted]
    for schedule, call in zip(SCHEDULES, calls, strict=True):
        [picture] = call.join()
        red, _, blue = picture[26:38, 26:38].reshape(-1, 3).mean(axis=0)
        assert red > blue + 50, schedule
        assert picture[:4, :4].mean() > 200, schedule
    for steps in (1, 2, 3):
        [picture] = renderer("sd", sampler=sampler, schedule="default", steps=steps)
        assert picture.std() > 0


def test_lcm_takes_more_steps_than_its_own_schedule_has(renderer: Renderer) -> None:
    [picture] = renderer("sd", sampler="lcm", steps=60)
    assert picture.std() > 0


@pytest.mark.parametrize(("sampler", "last"), [("dpmpp_2m", 9), ("euler_a", 3), ("dpmpp_2m_sde", 3)])
def test_a_picture_does_not_depend_on_its_neighbours(renderer: Renderer, sampler: str, last: int) -> None:
    together = renderer("demo", seeds=range(1, last + 1), sampler=sampler)
    for seed in (1, (last + 1) // 2, last):
        [alone] = renderer("demo", seeds=(seed,), sampler=sampler)
        assert furthest(together[seed - 1], alone) <= 2
    assert furthest(together[0], together[1]) > 30


def test_the_same_request_gives_the_same_pixels(renderer: Renderer) -> None:
    first, second = renderer("demo", seeds=(3, 4)), renderer("demo", seeds=(3, 4))
    assert np.array_equal(first, second)


def test_seeds_reach_the_end_of_their_range(renderer: Renderer) -> None:
    low, high = renderer("sd", seeds=(0, 2**32 - 1))
    assert furthest(low, high) > 10


def test_guidance_of_one_ignores_the_negative_prompt(renderer: Renderer) -> None:
    [without], [with_words] = renderer("sd", guidance=1.0), renderer("sd", guidance=1.0, negative_prompt="blue")
    assert np.array_equal(without, with_words)


@pytest.mark.parametrize("model", ["sd", "sdxl"])
def test_words_past_the_first_chunk_count(renderer: Renderer, model: str) -> None:
    long = "red heart, " * 12
    [cat], [dog] = renderer(model, long + "cat"), renderer(model, long + "green dog")
    assert furthest(cat, dog) > 2
    # Both sides are padded to the longer one, whichever it is.
    renderer(model, "cat", negative_prompt=long)
    renderer(model, "", negative_prompt="")


def test_other_sizes(renderer: Renderer) -> None:
    [wide] = renderer("demo", size=(80, 64))
    assert wide.shape == (64, 80, 3)
    with pytest.raises(EngineError, match="multiples of 4"):
        renderer("demo", size=(66, 64))


def test_prediction_type_comes_from_the_model(
    engine: DiffusersEngine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = make_tiny_sd(tmp_path_factory.mktemp("v") / "v", prediction_type="v_prediction")
    [ours] = Renderer(engine, {"v": read_base_model(folder)})("v")
    assert furthest(ours, render_plain(folder)) <= 2


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "dpmpp_2m_sde", "unipc"])
def test_many_steps_from_pure_noise(
    engine: DiffusersEngine, tmp_path_factory: pytest.TempPathFactory, sampler: str
) -> None:
    """Of a model trained to zero signal; Karras' spacing puts its first steps so close that their timesteps are one."""
    folder = make_tiny_sd(tmp_path_factory.mktemp("zero") / "zero", prediction_type="v_prediction")
    path = folder / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text()) | {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    path.write_text(json.dumps(config))
    [picture] = Renderer(engine, {"zero": read_base_model(folder)})(
        "zero", sampler=sampler, schedule="karras", steps=30
    )
    assert picture.std() > 5


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_sampler_cuts_latents_off(renderer: Renderer, sampler: str) -> None:
    """Some would by default, of a model whose own scheduler knows no such thing."""
    own = dict(load_plain(renderer.models["sdxl"].folder).scheduler.config)
    assert "clip_sample" not in own
    assert not create_scheduler(own, sampler, "default").config.get("clip_sample", False)


@pytest.mark.parametrize("schedule", [name for name in SCHEDULES if name != "default"])
def test_a_schedule_takes_the_place_of_the_models_own(schedule: str) -> None:
    """Diffusers refuses two spacings at once."""
    spacings = ("karras", "exponential", "beta")
    for own in spacings:
        config = dict(load_plain(DEMO).scheduler.config) | {f"use_{own}_sigmas": True}
        scheduler = create_scheduler(config, "dpmpp_2m", schedule)
        used = [name for name in spacings if scheduler.config[f"use_{name}_sigmas"]]
        assert used == [name for name in spacings if name == schedule]
        assert len(start_scheduler(scheduler, 5, torch.device("cpu"))) == 5


BETA = {
    "euler": EulerDiscreteScheduler,
    "heun": HeunDiscreteScheduler,
    "dpmpp_2m": DPMSolverMultistepScheduler,
    "unipc": UniPCMultistepScheduler,
}


@pytest.fixture(scope="module")
def beta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose own spacing is Beta."""
    folder = make_tiny_sd(tmp_path_factory.mktemp("beta") / "beta")
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"use_beta_sigmas": True}))
    return folder


@pytest.mark.parametrize("sampler", BETA)
def test_beta_is_diffusers_own(engine: DiffusersEngine, beta: Path, sampler: str) -> None:
    renderer, plain = Renderer(engine, {"beta": read_base_model(beta)}), load_plain(beta)
    original = plain.scheduler
    pictures = []
    for spaced in (True, False):
        plain.scheduler = BETA[sampler].from_config({**original.config, "use_beta_sigmas": spaced})
        image = plain(
            "red heart", num_inference_steps=4, guidance_scale=4.0, height=64, width=64, output_type="np",
            generator=torch.Generator().manual_seed(7),
        ).images[0]  # fmt: skip
        pictures.append((image * 255).round().astype(np.int16))
    plain.scheduler = original
    for schedule in ("default", "beta"):
        [ours] = renderer("beta", sampler=sampler, schedule=schedule)
        assert furthest(ours, pictures[0]) <= 2
    assert furthest(*pictures) > 2


def test_progress_counts_steps_over_all_pictures(renderer: Renderer) -> None:
    seen: list[Progress] = []
    renderer("demo", seeds=(1, 2), steps=6, sampler="heun", on_progress=seen.append)
    assert [progress.phase for progress in seen][:2] == [Phase.LOADING, Phase.ENCODING]
    assert seen[-1].phase is Phase.DECODING
    steps = [progress.step for progress in seen]
    assert steps == sorted(steps)
    assert (seen[-1].step, seen[-1].steps) == (12, 12)
    previews = [progress.preview for progress in seen if progress.preview is not None]
    assert previews
    assert previews[0].shape == (16, 16, 3)
    assert previews[0].dtype == np.uint8


def test_the_preview_resembles_the_picture(renderer: Renderer) -> None:
    seen: list[Progress] = []
    [picture] = renderer("demo", steps=12, on_progress=seen.append)
    preview = [progress.preview for progress in seen if progress.preview is not None][-1]
    small = picture.reshape(16, 4, 16, 4, 3).mean(axis=(1, 3))
    assert np.corrcoef(preview.ravel(), small.ravel())[0, 1] > 0.8


def test_cancelling_stops_within_a_step(renderer: Renderer) -> None:
    seen: list[Progress] = []
    with pytest.raises(RenderCancelled):
        renderer("demo", steps=50, on_progress=seen.append, is_cancelled=lambda: bool(seen) and seen[-1].step >= 2)
    assert 2 <= seen[-1].step <= 3
    [after] = renderer("demo")
    assert furthest(after, render_plain(renderer.models["demo"].folder)) <= 2


def test_threads_render_together(renderer: Renderer) -> None:
    results: dict[int, np.ndarray] = {}

    def work(seed: int) -> None:
        [results[seed]] = renderer("sd", seeds=(seed,))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for seed in (1, 2, 3):
        [alone] = renderer("sd", seeds=(seed,))
        assert furthest(results[seed], alone) <= 1


def test_status_names_what_is_loaded(renderer: Renderer) -> None:
    renderer("demo")
    status = renderer.engine.status()
    assert status.ready
    assert "VisionSuit Demo" in status.loaded_models
    assert status.memory_total_bytes is None
