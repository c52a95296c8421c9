"""Weights that leave the device and come back, for real: what is on the pretended device are other tensors."""

import gc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.engine.conftest import Renderer
from tests.engine.pretend import PretendGpu
from tests.engine.test_batching import BAR, Call, alone, furthest, init_of, request_for
from tests.engine.test_lora_formats import FORMATS, make
from tests.engine.test_whole import EULER
from tests.engine.tiny import make_lora
from tests.engine.tiny_flux import make_flux_lora, make_tiny_flux
from tests.engine.tiny_sd3 import make_tiny_sd3
from visionsuit.core.config import Offload
from visionsuit.engine.base import LoraRef, OutOfDeviceMemory
from visionsuit.engine.catalog import BaseModelInfo, read_base_model
from visionsuit.engine.diffusers_engine import DiffusersEngine
from visionsuit.engine.residence import Weights

#: Beside what a picture of 64 x 64 is expected to take.
ROOMY = 10**9

Open = Callable[..., tuple[Renderer, PretendGpu]]


@pytest.fixture
def open_engine(models: dict[str, BaseModelInfo]) -> Iterator[Open]:
    """An engine on a pretended device of so many bytes, watched: what is called is on the device."""
    closing: list[Callable[[], Any]] = []

    def start(size: int = ROOMY, *, budget: int | None = None, more: Any = None, **options: Any) -> Any:
        device = PretendGpu("cpu", "Pretended", size=size)
        engine = DiffusersEngine(device, threads=1, model_budget_bytes=budget, **options)
        engine.start()
        watch = device.watch()
        strangers = watch.__enter__()

        def close() -> None:
            engine.close()
            watch.__exit__(None, None, None)
            assert strangers == []
            gc.collect()
            assert device.memory()[0] == 0

        closing.append(close)
        return Renderer(engine, {**models, **(more or {})}), device

    yield start
    for close in closing:
        close()


@pytest.fixture(scope="module")
def mixes(models: dict[str, BaseModelInfo], tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[LoraRef]]:
    """Of each model: one that changes all, and one of UNet and text encoder."""
    folder = tmp_path_factory.mktemp("offload")
    made: dict[str, list[LoraRef]] = {}
    for name in ("sd", "sdxl"):
        for number, options in enumerate(({"conv": True, "text_encoder": True}, {"text_encoder": True})):
            path = folder / f"{name}{number}.safetensors"
            sha256 = make_lora(path, models[name].folder, seed=number, **options)  # type: ignore[arg-type]
            made.setdefault(name, []).append(LoraRef(sha256, path, 0.8 - 0.3 * number))
    return made


def loaded(renderer: Renderer) -> dict[str, Any]:
    return {model.label: model for model in renderer.engine.models}


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    modules = [model.unet, model.vae, *(encoder.module for encoder in model.text_encoders)]
    return {f"{n}.{name}": own for n, module in enumerate(modules) for name, own in module.state_dict().items()}


def test_one_that_is_rendered_whole_ends_while_another_model_waits_for_its_place(
    open_engine: Open, tmp_path: Path
) -> None:
    ours, _ = open_engine(budget=1, more={"flux": read_base_model(make_tiny_flux(tmp_path / "flux"))})
    whole = Call(ours.engine, request_for(ours, "flux", seeds=tuple(range(4)), steps=30, **EULER)).start().reach(2)
    other = Call(ours.engine, request_for(ours, "sd", steps=2)).start()
    assert len(whole.join()) == 4
    assert len(other.join()) == 1


def test_two_models_take_turns_on_a_device_that_holds_one(
    open_engine: Open, renderer: Renderer, mixes: dict[str, list[LoraRef]], tmp_path: Path
) -> None:
    """Plain, merged, in slots, with text encoders: all is as on a device that holds both, to the last weight."""
    lokr = make(renderer, tmp_path / "lokr.safetensors", FORMATS["lokr"])[0]
    plain = {name: request_for(renderer, name, steps=5) for name in ("sd", "sdxl")}
    mixed = {
        name: [replace(plain[name], loras=loras, seeds=(n,)) for n, loras in enumerate([*singles, tuple(mixes[name])])]
        for name, singles in (("sd", [(lora,) for lora in (*mixes["sd"], lokr)]), ("sdxl", [mixes["sdxl"][:1]]))
    }
    expected = {name: [alone(renderer, request)[0] for request in mixed[name]] for name in mixed}
    ours, device = open_engine(budget=1)
    first = {name: alone(ours, request)[0] for name, request in plain.items()}
    kept = loaded(ours)
    before = {name: {key: own.clone() for key, own in weights_of(kept[name]).items()} for name in kept}
    for name in ("sd", "sdxl", "sd", "sdxl", "sd"):
        calls = [Call(ours.engine, request).start() for request in mixed[name]]
        for call, picture in zip(calls, expected[name], strict=True):
            assert furthest(call.join()[0], picture) <= BAR
        assert furthest(alone(ours, mixed[name][0])[0], expected[name][0]) <= BAR
        assert np.array_equal(alone(ours, plain[name])[0], first[name])
        # Nothing of the other one is left on the device.
        status = ours.engine.status()
        other = kept["sd" if name == "sdxl" else "sdxl"]
        assert (status.loaded_models, status.extra["in_host_memory"]) == ((name,), [other.label])
        assert device.memory()[0] == status.extra["model_bytes"] == kept[name].residence.bytes
        assert other.loras.bytes == 0
    for name, model in loaded(ours).items():
        assert model is kept[name], "it was loaded again"
        after = weights_of(model)
        assert all(torch.equal(own, after[key]) for key, own in before[name].items())


def test_a_copy_in_host_memory_is_good_for_every_leaving(open_engine: Open) -> None:
    ours, device = open_engine(budget=1)
    for name in ("sd", "sdxl", "sd"):
        ours(name, steps=1)
    fetched = device.moves["fetched"]
    assert fetched == sum(model.residence.bytes for model in loaded(ours).values())
    for name in ("sdxl", "sd", "sdxl"):
        ours(name, steps=1)
    assert device.moves["fetched"] == fetched


@pytest.mark.parametrize("options", [{"host_budget_bytes": 1}, {"offload": Offload.NEVER}])
def test_without_room_in_host_memory_models_are_dropped(open_engine: Open, options: dict[str, Any]) -> None:
    ours, device = open_engine(budget=1, **options)
    [before] = ours("sd")
    first = loaded(ours)["sd"]
    ours("sdxl")
    assert list(loaded(ours)) == ["sdxl"]
    assert np.array_equal(ours("sd")[0], before)
    assert loaded(ours)["sd"] is not first
    assert device.moves["fetched"] == 0


def test_host_memory_is_bounded_and_the_longest_unused_goes(
    open_engine: Open, models: dict[str, BaseModelInfo]
) -> None:
    # A model that comes is expected to take twice the size of its files.
    room = models["sd"].weights_bytes + 2 * models["inpainting"].weights_bytes + 10**5
    ours, _ = open_engine(budget=1, host_budget_bytes=room)
    for names, waiting in (
        ("sd inpainting", ["sd"]),
        ("sd", ["inpainting"]),
        ("sdxl", ["sd"]),
        ("inpainting", ["sdxl"]),
    ):
        for name in names.split():
            ours(name, steps=1)
        status = ours.engine.status()
        assert status.loaded_models == (names.split()[-1],)
        assert status.extra["in_host_memory"] == waiting
        assert status.extra["host_model_bytes"] <= room


@pytest.mark.parametrize("model", ["sd", "sdxl"])
def test_parts_visit_where_the_whole_has_no_room(
    open_engine: Open, renderer: Renderer, mixes: dict[str, list[LoraRef]], model: str
) -> None:
    """Text encoders and VAE come for as long as they are used; the UNet stays."""
    requests = [
        request_for(renderer, model),
        request_for(renderer, model, loras=tuple(mixes[model]), seeds=(3, 4)),
        request_for(renderer, model, prompt="blue heart", init=init_of(64, 0.6, True)),
    ]
    expected = [alone(renderer, request) for request in requests]
    theirs = loaded(renderer)[model]
    ours, device = open_engine(size=theirs.residence.least_bytes + 1000)
    calls = [Call(ours.engine, request).start() for request in requests]
    for call, pictures in zip(calls, expected, strict=True):
        assert all(furthest(one, other) <= BAR for one, other in zip(call.join(), pictures, strict=True))
    mine = loaded(ours)[model]
    unet = sum(own.numel() * own.element_size() for own in mine.unet.parameters())
    assert device.memory()[0] == unet == ours.engine.status().extra["model_bytes"]
    assert all(torch.equal(own, weights_of(theirs)[key]) for key, own in weights_of(mine).items())


def test_always_means_parts_whatever_the_room(open_engine: Open, renderer: Renderer) -> None:
    [expected] = renderer("sdxl")
    ours, device = open_engine(offload=Offload.ALWAYS)
    assert furthest(ours("sdxl")[0], expected) <= BAR
    assert device.memory()[0] < loaded(ours)["sdxl"].residence.bytes


def test_memory_that_others_took_counts(open_engine: Open) -> None:
    ours, device = open_engine()
    device.held[0] = ROOMY - 6 * 10**6
    ours("sd")
    assert 0 < ours.engine.status().extra["model_bytes"] < loaded(ours)["sd"].residence.bytes
    del device.held[0]


@pytest.mark.parametrize("offload", list(Offload))
def test_what_fits_in_no_way_is_told_with_figures(open_engine: Open, offload: Offload) -> None:
    ours, device = open_engine(size=10**6, offload=offload)
    with pytest.raises(OutOfDeviceMemory, match=r"sd needs 0\.003\d+ GB of memory, and Pretended has 0\.001 GB free"):
        ours("sd")
    assert device.memory()[0] == 0


def test_one_that_comes_for_a_model_in_host_memory_waits_for_its_place(open_engine: Open, renderer: Renderer) -> None:
    requests = [
        request_for(renderer, steps=60, seeds=(1, 2)),
        request_for(renderer, "sdxl"),
        request_for(renderer, seeds=(9,)),
    ]
    expected = [alone(renderer, request) for request in requests]
    ours, _ = open_engine(budget=1)
    ours("sdxl", steps=1)
    calls = [Call(ours.engine, requests[0]).start().reach(3)]
    calls += [Call(ours.engine, request).start() for request in requests[1:]]
    for call, pictures in zip(calls, expected, strict=True):
        assert all(furthest(one, other) <= BAR for one, other in zip(call.join(), pictures, strict=True))


def test_with_room_for_both_one_comes_back_while_the_other_runs(open_engine: Open, renderer: Renderer) -> None:
    renderer("sd", steps=1)
    [expected] = renderer("sdxl")
    sizes = {name: model.residence.bytes for name, model in loaded(renderer).items()}
    ours, _ = open_engine(budget=sizes["sd"] + sizes["sdxl"] + 10**6)
    for name in ("sdxl", "inpainting", "demo"):
        ours(name, steps=1)
    assert "sdxl" in ours.engine.status().extra["in_host_memory"]
    running = Call(ours.engine, request_for(ours, steps=400)).start().reach(3)
    assert furthest(ours("sdxl")[0], expected) <= BAR
    assert running._thread.is_alive()
    running.cancelled.set()
    running.join()


def test_t5_visits_too(open_engine: Open, engine: DiffusersEngine, tmp_path: Path) -> None:
    more = {"sd3": read_base_model(make_tiny_sd3(tmp_path / "sd3", t5=True))}
    [expected] = Renderer(engine, more)("sd3", **EULER)
    ours, device = open_engine(offload=Offload.ALWAYS, more=more)
    assert furthest(ours("sd3", **EULER)[0], expected) <= BAR
    model = loaded(ours)["sd3"]
    assert device.memory()[0] == sum(own.numel() * own.element_size() for own in model.unet.state_dict().values())


def test_whole_pipelines_leave_and_come_back(open_engine: Open, engine: DiffusersEngine, tmp_path: Path) -> None:
    """With the LoRAs that are loaded into them, and what they take."""
    more = {"flux": read_base_model(make_tiny_flux(tmp_path / "flux"))}
    mixes = [(), *((lora,) for lora in flux_loras(tmp_path))]
    expected = [Renderer(engine, more)("flux", loras=mix, **EULER)[0] for mix in mixes]
    ours, device = open_engine(budget=1, more=more)
    sizes = []
    for _ in range(3):
        for mix, picture in zip(mixes, expected, strict=True):
            assert furthest(ours("flux", loras=mix, **EULER)[0], picture) <= BAR
        sizes.append(device.memory()[0])
        assert ours.engine.status().extra["model_bytes"] == sizes[-1]
        ours("sd", steps=1)
        extra = ours.engine.status().extra
        assert extra["in_host_memory"] == ["flux"]
        assert extra["host_model_bytes"] == sizes[-1] + loaded(ours)["sd"].residence.host_bytes
        assert device.memory()[0] == loaded(ours)["sd"].residence.bytes
        assert furthest(ours("flux", loras=mixes[1], **EULER)[0], expected[1]) <= BAR
    assert len(set(sizes)) == 1


def flux_loras(folder: Path) -> list[LoraRef]:
    paths = [folder / f"{number}.safetensors" for number in range(2)]
    return [
        LoraRef(make_flux_lora(path, folder / "flux", text_encoder=True, seed=number), path, 0.8)
        for number, path in enumerate(paths)
    ]


def test_whole_pipelines_without_room_let_their_parts_come_and_go(engine: DiffusersEngine, tmp_path: Path) -> None:
    """By diffusers' own means, so nothing here is watched."""
    more = {"flux": read_base_model(make_tiny_flux(tmp_path / "flux"))}
    mixes = [(), *((lora,) for lora in flux_loras(tmp_path))]
    expected = [Renderer(engine, more)("flux", loras=mix, **EULER)[0] for mix in mixes]
    device = PretendGpu("cpu", "Pretended", size=ROOMY)
    ours = Renderer(DiffusersEngine(device, threads=1, offload=Offload.ALWAYS), more)
    ours.engine.start()
    for _ in range(2):
        for mix, picture in zip(mixes, expected, strict=True):
            assert np.array_equal(ours("flux", loras=mix, **EULER)[0], picture)
    assert device.moves["placed"] == 0
    assert ours.engine.status().loaded_models == ("flux",)
    ours.engine.close()


def test_weights_that_find_no_room_stay_as_they_were() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(50, 50), torch.nn.Linear(50, 50))
    before = [(own.data_ptr(), own.clone()) for own in module.parameters()]
    device = PretendGpu("cpu", "Pretended", size=15_000)
    weights = Weights([module], device)
    with pytest.raises(torch.OutOfMemoryError), weights.visit():
        pytest.fail("there was room")
    assert (weights.on_device, weights.device_bytes, weights.host_bytes) == (False, 0, weights.bytes)
    for own, (address, value) in zip(module.parameters(), before, strict=True):
        assert own.data_ptr() == address
        assert torch.equal(own, value)
    gc.collect()
    assert device.memory()[0] == 0
