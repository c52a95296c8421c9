"""Many people, many LoRA mixes, one device: B1 to B5 and what goes with them.

Sides are interleaved and gated: a figure is void when ours is not the reference's picture. Here on the CPU, with small
models; `python -m benchmarks.gpu` takes the same measures at full size.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file

from benchmarks.harness import NOISE, Figure, at_once, compare
from benchmarks.subjects import PEOPLE, Pixels, Subject, render, small_subjects, together
from visionsuit.engine.admission import admit
from visionsuit.engine.base import Phase, Progress, RenderRequest
from visionsuit.engine.base_models import LoadedModel
from visionsuit.engine.base_shapes import read_base_shapes
from visionsuit.engine.batches import Batch
from visionsuit.engine.diffusers_engine import DiffusersEngine
from visionsuit.engine.lora_packs import PackCache
from visionsuit.engine.slots import SlotPool
from visionsuit.engine.tickets import Ticket

# B1


def people(subject: Subject, target: float, *, rounds: int = 5, loading: bool = False, count: int = PEOPLE) -> Figure:
    """Many at once against diffusers' `set_adapters` one by one, which has the adapters already or loads them too."""
    requests = [subject.request(number) for number in range(count)]
    pipe = subject.pipeline()
    last: dict[str, list[Pixels]] = {}
    if not loading:
        subject.load_loras(pipe, subject.loras)

    def theirs() -> None:
        last["theirs"] = []
        for request in requests:
            if loading:
                pipe.unload_lora_weights()
                subject.load_loras(pipe, request.loras)
            subject.set_mix(pipe, request)
            last["theirs"].append(subject.plain(pipe, request))

    with subject.engine() as engine:

        def ours() -> None:
            if loading:
                for model in engine.models:
                    model.loras.packs.clear()
            last["ours"] = together(engine, requests)

        how = "load + set_adapters" if loading else "set_adapters"
        return compare(
            "B1", f"{subject.name}: {count} people's mixes at once / diffusers {how} one by one, speed-up",
            ours, theirs, target=target, faster_is_more=True, rounds=rounds,
            correct=lambda: subject.same(last["ours"], last["theirs"]),
        )  # fmt: skip


def people_peft(subject: Subject, *, target: float = 1.5, rounds: int = 5) -> Figure:
    """Many at once against one batch of diffusers' whose rows go through PEFT adapters of their own.

    Such a batch must begin and end together and share its scheduler and guidance, and a row has one adapter: each mix
    is summed up into one before anything is timed.
    """
    requests = [replace(subject.request(number), guidance=4.0) for number in range(PEOPLE)]
    pipe = subject.pipeline()
    for number, request in enumerate(requests):
        pipe.load_lora_weights(_summed(request), adapter_name=f"person{number}")
    pipe.unet.to(pipe.dtype)
    rows = [f"person{number}" for number in range(PEOPLE)]
    # Guidance doubles the batch: all without the prompt, then all with it.
    for layer in pipe.unet.modules():
        if isinstance(layer, LoraLayer):
            layer.register_forward_pre_hook(
                lambda _, inputs, kwargs: (inputs, {**kwargs, "adapter_names": rows + rows}), with_kwargs=True
            )
    last: dict[str, list[Pixels]] = {}

    def theirs() -> None:
        images = pipe(
            [request.prompt for request in requests], num_inference_steps=subject.steps, guidance_scale=4.0,
            height=subject.size, width=subject.size, output_type="np",
            generator=[torch.Generator().manual_seed(request.seeds[0]) for request in requests],
        ).images  # fmt: skip
        last["theirs"] = [(image * 255).round().astype(np.int16) for image in images]

    with subject.engine() as engine:

        def ours() -> None:
            last["ours"] = together(engine, requests)

        return compare(
            "B1", f"{subject.name}: {PEOPLE} people's mixes at once / one batch of PEFT adapters, speed-up",
            ours, theirs, target=target, faster_is_more=True, rounds=rounds,
            correct=lambda: subject.same(last["ours"], last["theirs"]),
        )  # fmt: skip


def _summed(request: RenderRequest) -> dict[str, torch.Tensor]:
    """The request's mix as the state of one LoRA, whose rank is the sum of theirs."""
    state: dict[str, torch.Tensor] = {}
    for lora in request.loras:
        for name, tensor in load_file(lora.path).items():
            part = tensor.float() * (lora.weight if ".lora_B." in name else 1.0)
            state[name] = torch.cat([state[name], part], int(".lora_B." in name)) if name in state else part
    return state


def people_merged(subject: Subject, *, target: float = 1.5, rounds: int = 5) -> Figure:
    """Many at once against one after another in the same engine, which merges."""
    requests = [subject.request(number) for number in range(PEOPLE)]
    last: dict[str, list[Pixels]] = {}
    with subject.engine() as engine:

        def ours() -> None:
            last["ours"] = together(engine, requests)

        def one_by_one() -> None:
            last["alone"] = [render(engine, request) for request in requests]

        return compare(
            "B1", f"{subject.name}: {PEOPLE} people's mixes at once / merged one by one in the same engine, speed-up",
            ours, one_by_one, target=target, faster_is_more=True, rounds=rounds,
            correct=lambda: subject.same(last["ours"], last["alone"]),
        )  # fmt: skip


def single(subject: Subject, *, target: float = 1.03, rounds: int = 7) -> Figure:
    """One request without LoRAs, alone, against the bare call."""
    request, pipe = subject.request(0, mixed=False), subject.pipeline()
    last: dict[str, list[Pixels]] = {}
    with subject.engine() as engine:

        def ours() -> None:
            last["ours"] = [render(engine, request)]

        def theirs() -> None:
            last["theirs"] = [subject.plain(pipe, request)]

        return compare(
            "single", f"{subject.name}: one request in the engine / bare diffusers call", ours, theirs,
            target=target, rounds=rounds, correct=lambda: subject.same(last["ours"], last["theirs"]),
        )  # fmt: skip


# B2, B3


def _batch(model: LoadedModel, requests: Sequence[RenderRequest]) -> list[torch.Tensor]:
    """Latents, [1, C, h, w] each, of requests that begin and end together."""
    tickets = []
    for request in requests:
        ticket = Ticket(request)
        ticket.model = model
        ticket.packs = {lora.sha256: model.loras.packs.get(lora) for lora in request.loras}
        tickets.append(ticket)
    with torch.inference_mode():
        admitted = [admit(ticket) for ticket in tickets]
        batch = Batch(admitted[0][0], model, PEOPLE)
        rows = [row for _, own in admitted for row in own]
        batch.add(rows)
        while not batch.is_empty:
            batch.step()
        batch.close()
    return [row.latent.cpu() for row in rows]


def mixed_against_plain(subject: Subject, target: float) -> Iterator[Figure]:
    model = subject.load()
    mixed = [subject.request(number) for number in range(PEOPLE)]
    plain = [subject.request(number, mixed=False) for number in range(PEOPLE)]
    last: dict[str, list[torch.Tensor]] = {}

    def with_loras() -> None:
        last["mixed"] = _batch(model, mixed)

    def without() -> None:
        last["plain"] = _batch(model, plain)

    yield compare(
        "B2", f"{subject.name}: a batch of 8 mixes / the same batch without LoRAs, speed",
        with_loras, without, target=target, faster_is_more=True, rounds=5,
    )  # fmt: skip
    deviation = {}
    for name, requests in (("mixed", mixed), ("plain", plain)):
        alone = [_batch(model, [request])[0] for request in requests]
        largest = max(float(one.abs().max()) for one in alone)
        deviation[name] = max(
            float((one - other).abs().max()) for one, other in zip(alone, last[name], strict=True)
        ) / largest  # fmt: skip
    ratio = deviation["mixed"] / deviation["plain"]
    wrong = "" if deviation["mixed"] < (1e-4 if subject.device.kind == "cpu" else 0.1) else "wrong result"
    yield Figure(
        "B3", f"{subject.name}: deviation from alone, with mixes / plain batching", deviation["mixed"],
        deviation["plain"], "of the largest latent", ratio, "<= 2", ratio <= 2, wrong,
    )  # fmt: skip


def _wait(subject: Subject) -> None:
    """For what the device has been given to do."""
    if subject.device.kind == "cuda":
        torch.cuda.synchronize()


# B4 and switching


def mix_ready(subject: Subject, *, against_diffusers: bool = True) -> Iterator[Figure]:
    model = subject.load()
    request = subject.request(0)
    layouts = {component: one.layout for component, one in model.loras.adapted.items()}
    unet = model.loras.unet
    pool = SlotPool(unet.layout, unet.layers, 2, model.device, model.dtype)
    cache = PackCache(read_base_shapes(subject.folder), layouts, model.dtype, 2**30)
    slot = iter(range(10**9))

    def write() -> None:
        packs = {lora.sha256: cache.get(lora) for lora in request.loras}
        mix = model.loras.unet_mix(request.loras, packs)
        number = next(slot)
        # Another weight each time, or the slot would be found written.
        pool.write(number % 4, tuple((sha, weight + number * 1e-6) for sha, weight in mix.key), mix.parts)
        _wait(subject)

    def cold() -> None:
        cache.clear()
        write()

    def read() -> None:
        for lora in request.loras:
            load_file(lora.path)

    pipe: Any = subject.pipeline() if against_diffusers else None

    def diffusers() -> None:
        subject.load_loras(pipe, request.loras)
        subject.set_mix(pipe, request)
        pipe.unload_lora_weights()

    name = subject.name
    yield compare("B4", f"{name}: mix of two ready, first use / load_file", cold, read, target=2.0, rounds=9)
    yield compare("B4", f"{name}: mix of two ready, kept / load_file", write, read, target=0.2, rounds=9)
    if not against_diffusers:
        return
    yield compare(
        "B4", f"{name}: mix of two ready, kept / diffusers load + set_adapters, speed-up",
        write, diffusers, target=200, faster_is_more=True, rounds=5,
    )  # fmt: skip


def switch(subject: Subject) -> Figure:
    """To another mix and back to the first, both merged before, against the bare sums of weights and deltas."""
    model = subject.load()
    loras, holder = model.loras, object()
    requests = [subject.request(number) for number in (0, 3)]
    mixes = []
    for request in requests:
        packs = {lora.sha256: loras.packs.get(lora) for lora in request.loras}
        mixes.append(loras.unet_mix(request.loras, packs))
    weights = {name: layer.weight.detach().flatten(1) for name, layer in loras.unet.layers.items()}
    merged = {name: torch.empty_like(weight) for name, weight in weights.items()}
    deltas = [entry for request in requests for entry in _deltas(model, request)]

    @torch.inference_mode()
    def ours() -> None:
        for mix in mixes:
            loras.merged.take(holder, mix)
        _wait(subject)

    @torch.inference_mode()
    def bare() -> None:
        for name, up, down in deltas:
            torch.addmm(weights[name], up, down, out=merged[name])
        _wait(subject)

    return compare(
        "switch", f"{subject.name}: back to a mix used before / merge of the deltas alone", ours, bare,
        target=1.2, rounds=15,
    )  # fmt: skip


def _deltas(model: LoadedModel, request: RenderRequest) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    """(name, up [out, rank], down [rank, in]) of each layer, the strengths in `up`."""
    names = {real: name for name, real in model.loras.unet.layout.real_names.items()}
    down: dict[str, list[torch.Tensor]] = {}
    up: dict[str, list[torch.Tensor]] = {}
    for lora in request.loras:
        for name, tensor in load_file(lora.path).items():
            module, _, half = name.removeprefix("unet.").partition(".lora_")
            side, scale = (down, 1.0) if half.startswith("A") else (up, lora.weight)
            side.setdefault(module, []).append((tensor.float() * scale).flatten(1).to(model.device, model.dtype))
    return [(names[name], torch.cat(up[name], 1), torch.cat(down[name])) for name in down]


# Arrival


def first_step(subject: Subject) -> Figure:
    """From the call of `render` to its first step, while others run, in lengths of a step. People come at any moment
    of a step: right after the end of the one before, nearly a whole step would be ahead each time."""
    waits, lengths = [], []
    random = np.random.default_rng(1)
    with subject.engine() as engine:
        render(engine, subject.request(7))
        stop = threading.Event()
        marks: list[tuple[float, int]] = []
        others = [
            threading.Thread(
                target=lambda number=number: _until(
                    engine, subject.request(number, steps=2000), stop, marks if number == 0 else []
                )
            )
            for number in range(4)
        ]
        for thread in others:
            thread.start()
        while len(marks) < 20:
            time.sleep(0.01)
        for _ in range(21):
            time.sleep(random.uniform(0, (marks[-1][0] - marks[-20][0]) / (marks[-1][1] - marks[-20][1])))
            began, first = time.perf_counter(), list[float]()

            def note(progress: Any, first: list[float] = first) -> None:
                if progress.step and not first:
                    first.append(time.perf_counter())

            engine.render(subject.request(7, steps=3), on_progress=note, is_cancelled=lambda: False)
            waits.append(first[0] - began)
            # A caller that comes late hears of several steps at once.
            pairs = zip(marks[-20:], marks[-19:], strict=False)
            recent = [(end - begin) / (after - before) for (begin, before), (end, after) in pairs]
            lengths.append(sorted(recent)[len(recent) // 2])
        stop.set()
        for thread in others:
            thread.join()
    wait, length = sorted(waits)[len(waits) // 2], sorted(lengths)[len(lengths) // 2]
    return Figure(
        "arrival", f"{subject.name}: first step of a request that arrives among four / length of a step",
        wait, length, "s", wait / length, "<= 2", wait / length <= 2,
    )  # fmt: skip


def _until(
    engine: DiffusersEngine, request: RenderRequest, stop: threading.Event, marks: list[tuple[float, int]]
) -> None:
    """`marks` gets time and number of every step."""

    def note(progress: Progress) -> None:
        if progress.phase is Phase.DENOISING:
            marks.append((time.perf_counter(), progress.step))

    try:
        engine.render(request, on_progress=note, is_cancelled=stop.is_set)
    except Exception:  # cancelled, as asked
        assert stop.is_set()


# B5


def latency(subject: Subject, count: int = 200, parts: int = 2) -> Iterator[Figure]:
    """The same Poisson arrivals of 4 to 20 steps at 80 % of what one at a time can bear.

    Args:
        count: of requests, in parts played turn by turn. From an empty start it takes dozens until the queue is as
            long as it is on average at such a load; fewer requests would flatter the side without batches.
    """
    random = np.random.default_rng(1)
    steps = random.integers(4, 21, count)
    requests = [subject.request(number % PEOPLE, steps=int(n), seed=number) for number, n in enumerate(steps)]
    with subject.engine() as engine:
        for request in requests[:PEOPLE]:
            render(engine, request)
        speeds: list[float] = []

        def measure() -> float:
            """Seconds of a request alone; as many steps as the others have on average."""
            began = time.perf_counter()
            for number in range(PEOPLE):
                render(engine, subject.request(number, steps=12))
            speeds.append((time.perf_counter() - began) / PEOPLE)
            return speeds[-1]

        gaps = random.exponential(measure() / 0.8, count)
        served, turns = [0], threading.Condition()
        alone: dict[int, Pixels] = {}
        service: dict[int, float] = {}
        wrong: list[int] = []

        def play(numbers: Sequence[int], *, one_at_a_time: bool = False, crowded: bool = False) -> list[float]:
            """Latency of each request, seconds."""
            arrivals = np.zeros(len(numbers)) if crowded else np.cumsum(gaps[numbers])
            latencies = [0.0] * len(numbers)
            served[0] = 0
            start = time.perf_counter()

            def person(place: int) -> None:
                number, due = numbers[place], start + float(arrivals[place])
                time.sleep(max(0.0, due - time.perf_counter()))
                if one_at_a_time:
                    with turns:
                        turns.wait_for(lambda: served[0] == place)
                        began = time.perf_counter()
                        alone[number] = render(engine, requests[number])
                        service[number] = time.perf_counter() - began
                        served[0] += 1
                        turns.notify_all()
                elif not subject.same([render(engine, requests[number])], [alone[number]]):
                    wrong.append(number)
                latencies[place] = time.perf_counter() - due

            at_once(person, len(numbers))
            return latencies

        ours: list[float] = []
        theirs: list[float] = []
        for part in range(parts):
            numbers = list(range(part, count, parts))
            theirs += play(numbers, one_at_a_time=True)
            measure()
            ours += play(numbers)
            measure()
        crowd = list(range(4 * PEOPLE))
        saturated_s = max(play(crowd, crowded=True))
    spread = max(speeds) / min(speeds) - 1
    void = "wrong result" if wrong else f"noisy ({spread:.0%})" if spread > 2 * NOISE else ""
    mine, fifo = float(np.percentile(ours, 95)), float(np.percentile(theirs, 95))
    yield Figure(
        "B5", f"{subject.name}: p95 latency at 80 % load / first in, first out, one at a time", mine, fifo, "s",
        mine / fifo, "<= 0.5", mine / fifo <= 0.5, void,
        {"requests": count, "mean_ours_s": float(np.mean(ours)), "mean_reference_s": float(np.mean(theirs))},
    )  # fmt: skip
    one_by_one_s = sum(service[number] for number in crowd)
    gain = one_by_one_s / saturated_s
    yield Figure(
        "B5", f"{subject.name}: throughput at saturation / one at a time", len(crowd) / saturated_s,
        len(crowd) / one_by_one_s, "pictures/s", gain, ">= 1.5", gain >= 1.5, void,
    )  # fmt: skip


def run_people() -> list[Figure]:
    torch.set_num_threads(1)
    with small_subjects() as (tiny, topology, demo):
        figures = [people(tiny, 3.0), people(topology, 4.0), people(demo, 1.5)]
        return figures + [side(one) for one in (tiny, topology, demo) for side in (people_peft, people_merged)]


def run_mixed() -> list[Figure]:
    torch.set_num_threads(1)
    with small_subjects() as (tiny, topology, demo):
        targets = ((tiny, 0.60), (topology, 0.55), (demo, 0.75))
        return [figure for subject, target in targets for figure in mixed_against_plain(subject, target)]


def run_ready() -> list[Figure]:
    torch.set_num_threads(1)
    with small_subjects() as (_, topology, demo):
        return [*mix_ready(topology), switch(topology), first_step(topology), first_step(demo), single(demo)]


def run_latency() -> list[Figure]:
    torch.set_num_threads(1)
    with small_subjects() as (tiny, topology, _):
        return [*latency(tiny, 400), *latency(topology)]
