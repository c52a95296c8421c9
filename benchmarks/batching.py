"""Many people, many LoRA mixes, one device: B1 to B5 and what goes with them, on a tiny model, on SDXL's topology at a
tenth of its width, and on the demo model.

Sides are interleaved and gated: a figure is void when ours is not the reference's picture.
"""

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from numpy.typing import NDArray
from safetensors.torch import load_file

from benchmarks.harness import NOISE, Figure, compare, noise
from tests.engine.tiny import DEMO, make_lora, make_sdxl_topology, make_tiny_sd
from visionsuit.engine.admission import admit
from visionsuit.engine.base import LoraRef, RenderRequest
from visionsuit.engine.base_models import LoadedModel, load_model
from visionsuit.engine.batches import Batch
from visionsuit.engine.catalog import read_base_model
from visionsuit.engine.compat import read_base_shapes
from visionsuit.engine.devices import choose_device
from visionsuit.engine.diffusers_engine import DiffusersEngine
from visionsuit.engine.lora_packs import PackCache
from visionsuit.engine.samplers import create_scheduler
from visionsuit.engine.slots import SlotPool
from visionsuit.engine.tickets import Ticket

PEOPLE = 8
STEPS = 8
RANKS = (4, 8, 16, 32, 8, 16)
#: Levels of 255 that a picture may differ from diffusers' own.
BAR = 2


class Subject:
    """A model folder, LoRA files for it, and eight people's requests with distinct mixes of two."""

    def __init__(self, name: str, folder: Path, loras: Path) -> None:
        self.name, self.folder = name, folder
        self.ref = read_base_model(folder).ref
        self.files = [loras / f"{name}-{number}.safetensors" for number in range(len(RANKS))]
        self.loras = [
            LoraRef(make_lora(file, folder, rank, "diffusers", transformer=True, seed=number, strength=0.3), file, 1.0)
            for number, (file, rank) in enumerate(zip(self.files, RANKS, strict=True))
        ]

    def request(self, number: int, *, mixed: bool = True, steps: int = STEPS, seed: int | None = None) -> RenderRequest:
        first, second = number % len(RANKS), (number + 1 + number // len(RANKS)) % len(RANKS)
        mix = (replace(self.loras[first], weight=0.5 + 0.05 * number), replace(self.loras[second], weight=0.4))
        return RenderRequest(
            self.ref, f"red heart {number}", "", 64, 64, steps, 4.0 + number / 4, (number if seed is None else seed,),
            "dpmpp_2m", "trailing", mix if mixed else (),
        )  # fmt: skip

    def pipeline(self) -> Any:
        double = (self.folder / "text_encoder_2").is_dir()
        pipe: Any = (StableDiffusionXLPipeline if double else StableDiffusionPipeline).from_pretrained(
            self.folder, dtype=torch.float32
        )
        pipe.set_progress_bar_config(disable=True)
        pipe.scheduler = create_scheduler(dict(pipe.scheduler.config), "dpmpp_2m", "trailing")
        return pipe


@contextmanager
def _subjects() -> Iterator[list[Subject]]:
    with tempfile.TemporaryDirectory(prefix="visionsuit-bench-") as name:
        folder = Path(name)
        yield [
            Subject("tiny", make_tiny_sd(folder / "tiny"), folder / "loras"),
            Subject("SDXL topology", make_sdxl_topology(folder / "sdxl"), folder / "loras"),
            Subject("demo", DEMO, folder / "loras"),
        ]


@contextmanager
def _engine() -> Iterator[DiffusersEngine]:
    engine = DiffusersEngine(device="cpu", threads=1)
    engine.start()
    try:
        yield engine
    finally:
        engine.close()


def _render(engine: DiffusersEngine, request: RenderRequest) -> NDArray[np.int16]:
    [picture] = engine.render(request, on_progress=lambda _: None, is_cancelled=lambda: False)
    return picture.pixels.astype(np.int16)


def _together(engine: DiffusersEngine, requests: Sequence[RenderRequest]) -> list[NDArray[np.int16]]:
    """Every request from a thread of its own."""
    made: dict[int, NDArray[np.int16]] = {}

    def work(number: int) -> None:
        made[number] = _render(engine, requests[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [made[number] for number in range(len(requests))]


def _same(ours: Sequence[NDArray[np.int16]], theirs: Sequence[NDArray[np.int16]]) -> bool:
    return max(int(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True)) <= BAR


def _plain(pipe: Any, request: RenderRequest) -> NDArray[np.int16]:
    image = pipe(
        request.prompt, num_inference_steps=request.steps, guidance_scale=request.guidance, height=64, width=64,
        generator=torch.Generator().manual_seed(request.seeds[0]), output_type="np",
    ).images[0]  # fmt: skip
    return (image * 255).round().astype(np.int16)


# B1


def _people(subject: Subject, target: float) -> Iterator[Figure]:
    requests = [subject.request(number) for number in range(PEOPLE)]
    pipe = subject.pipeline()
    for number, file in enumerate(subject.files):
        pipe.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name=f"a{number}")
    names = {file: f"a{number}" for number, file in enumerate(subject.files)}
    last: dict[str, list[NDArray[np.int16]]] = {}

    def theirs() -> None:
        last["theirs"] = []
        for request in requests:
            pipe.set_adapters([names[lora.path] for lora in request.loras], [lora.weight for lora in request.loras])
            last["theirs"].append(_plain(pipe, request))

    with _engine() as engine:

        def ours() -> None:
            last["ours"] = _together(engine, requests)

        def one_by_one() -> None:
            last["alone"] = [_render(engine, request) for request in requests]

        yield compare(
            "B1", f"{subject.name}: 8 people's mixes at once / diffusers set_adapters one by one, speed-up",
            ours, theirs, target=target, faster_is_more=True, rounds=5,
            correct=lambda: _same(last["ours"], last["theirs"]),
        )  # fmt: skip
        yield compare(
            "B1", f"{subject.name}: 8 people's mixes at once / merged one by one in the same engine, speed-up",
            ours, one_by_one, target=1.5, faster_is_more=True, rounds=5,
            correct=lambda: _same(last["ours"], last["alone"]),
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
    return [row.latent for row in rows]


def _mixed_against_plain(subject: Subject, target: float) -> Iterator[Figure]:
    model = load_model(subject.ref, choose_device("cpu"))
    mixed = [subject.request(number) for number in range(PEOPLE)]
    plain = [subject.request(number, mixed=False) for number in range(PEOPLE)]
    last: dict[str, list[torch.Tensor]] = {}

    def with_loras() -> None:
        last["mixed"] = _batch(model, mixed)

    def without() -> None:
        last["plain"] = _batch(model, plain)

    figure = compare(
        "B2", f"{subject.name}: a batch of 8 mixes / the same batch without LoRAs, speed",
        with_loras, without, target=target, faster_is_more=True, rounds=5,
    )  # fmt: skip
    yield figure
    deviation = {}
    for name, requests in (("mixed", mixed), ("plain", plain)):
        alone = [_batch(model, [request])[0] for request in requests]
        largest = max(float(one.abs().max()) for one in alone)
        deviation[name] = max(
            float((one - other).abs().max()) for one, other in zip(alone, last[name], strict=True)
        ) / largest  # fmt: skip
    ratio = deviation["mixed"] / deviation["plain"]
    wrong = "" if deviation["mixed"] < 1e-4 else "wrong result"
    yield Figure(
        "B3", f"{subject.name}: deviation from alone, with mixes / plain batching", deviation["mixed"],
        deviation["plain"], "of the largest latent", ratio, "<= 2", ratio <= 2, wrong,
    )  # fmt: skip


# B4 and switching


def _mix_ready(subject: Subject) -> Iterator[Figure]:
    model = load_model(subject.ref, choose_device("cpu"))
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

    def cold() -> None:
        cache.clear()
        write()

    def read() -> None:
        for lora in request.loras:
            load_file(lora.path)

    pipe = subject.pipeline()

    def diffusers() -> None:
        for number, lora in enumerate(request.loras):
            pipe.load_lora_weights(str(lora.path.parent), weight_name=lora.path.name, adapter_name=f"a{number}")
        pipe.set_adapters(["a0", "a1"], [0.5, 0.4])
        pipe.unload_lora_weights()

    name = subject.name
    yield compare("B4", f"{name}: mix of two ready, first use / load_file", cold, read, target=2.0, rounds=9)
    yield compare("B4", f"{name}: mix of two ready, kept / load_file", write, read, target=0.2, rounds=9)
    yield compare(
        "B4", f"{name}: mix of two ready, kept / diffusers load + set_adapters, speed-up",
        write, diffusers, target=200, faster_is_more=True, rounds=5,
    )  # fmt: skip


def _switch(subject: Subject) -> Figure:
    """Back to a mix used before, merged, against the bare sum of weights and deltas."""
    model = load_model(subject.ref, choose_device("cpu"))
    loras, holder = model.loras, object()
    mixes = []
    for number in (0, 3):
        request = subject.request(number)
        packs = {lora.sha256: loras.packs.get(lora) for lora in request.loras}
        mixes.append(loras.unet_mix(request.loras, packs))
    down, up, buffers = {}, {}, {}
    modules = dict(model.unet.named_modules())
    for file, scale in zip(subject.files, (0.5, 0.4), strict=False):
        for name, tensor in load_file(file).items():
            module, _, half = name.removeprefix("unet.").partition(".lora_")
            side = down if half.startswith("A") else up
            side.setdefault(module, []).append(tensor.float() * (1.0 if side is down else scale))
    deltas = [(modules[name].weight, torch.cat(up[name], 1), torch.cat(down[name])) for name in down]
    for weight, _, _ in deltas:
        buffers[id(weight)] = torch.empty_like(weight)
    turn = iter(range(10**9))

    @torch.inference_mode()
    def ours() -> None:
        mix = mixes[next(turn) % 2]
        loras.merged.take(holder, mix)

    @torch.inference_mode()
    def bare() -> None:
        for weight, b, a in deltas:
            torch.addmm(weight, b, a, out=buffers[id(weight)])

    return compare(
        "switch", f"{subject.name}: back to a mix used before / merge of the deltas alone", ours, bare,
        target=1.2, rounds=15,
    )  # fmt: skip


# Arrival


def _first_step(subject: Subject) -> Figure:
    """From the call of `render` to its first step, while others run, in lengths of a step."""
    waits, lengths = [], []
    with _engine() as engine:
        _render(engine, subject.request(7))
        stop = threading.Event()
        marks: list[float] = []
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
        for _ in range(15):
            began, first = time.perf_counter(), []

            def note(progress: Any, first: list[float] = first) -> None:
                if progress.step and not first:
                    first.append(time.perf_counter())

            engine.render(subject.request(7, steps=3), on_progress=note, is_cancelled=lambda: False)
            waits.append(first[0] - began)
            recent = [b - a for a, b in zip(marks[-20:], marks[-19:], strict=False)]
            lengths.append(sorted(recent)[len(recent) // 2])
        stop.set()
        for thread in others:
            thread.join()
    wait, length = sorted(waits)[len(waits) // 2], sorted(lengths)[len(lengths) // 2]
    return Figure(
        "arrival", f"{subject.name}: first step of a request that arrives among four / length of a step",
        wait, length, "s", wait / length, "<= 2", wait / length <= 2,
    )  # fmt: skip


def _until(engine: DiffusersEngine, request: RenderRequest, stop: threading.Event, marks: list[float]) -> None:
    try:
        engine.render(request, on_progress=lambda _: marks.append(time.perf_counter()), is_cancelled=stop.is_set)
    except Exception:  # cancelled, as asked
        assert stop.is_set()


# B5


def _latency(subject: Subject, count: int = 30) -> Iterator[Figure]:
    """The same Poisson arrivals of 4 to 20 steps at 80 % of what one at a time can bear."""
    random = np.random.default_rng(1)
    steps = random.integers(4, 21, count)
    requests = [subject.request(number % PEOPLE, steps=int(n), seed=number) for number, n in enumerate(steps)]
    with _engine() as engine:
        for request in requests[:PEOPLE]:
            _render(engine, request)
        began = time.perf_counter()
        alone = [_render(engine, request) for request in requests]
        service_s = (time.perf_counter() - began) / count
        arrivals = np.cumsum(random.exponential(service_s / 0.8, count))
        turn = threading.Lock()

        def play(one_at_a_time: bool, spread: bool = True) -> tuple[list[float], float, bool]:
            latencies, right = [0.0] * count, [False] * count
            start = time.perf_counter()

            def person(number: int) -> None:
                due = start + (arrivals[number] if spread else 0.0)
                time.sleep(max(0.0, due - time.perf_counter()))
                if one_at_a_time:
                    with turn:
                        picture = _render(engine, requests[number])
                else:
                    picture = _render(engine, requests[number])
                latencies[number] = time.perf_counter() - due
                right[number] = _same([picture], [alone[number]])

            threads = [threading.Thread(target=person, args=(number,)) for number in range(count)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return latencies, time.perf_counter() - start, all(right)

        ours, fifo = play(False), play(True)
        ours_again, fifo_again = play(False), play(True)
        saturated = play(False, spread=False)
    p95 = [float(np.percentile(side[0], 95)) for side in (ours, ours_again, fifo, fifo_again)]
    mine, theirs = min(p95[:2]), min(p95[2:])
    void = "" if ours[2] and fifo[2] and saturated[2] else "wrong result"
    if not void and max(noise(p95[:2]), noise(p95[2:])) > 2 * NOISE:
        void = "noisy"
    yield Figure(
        "B5", f"{subject.name}: p95 latency at 80 % load / first in, first out, one at a time", mine, theirs, "s",
        mine / theirs, "<= 0.5", mine / theirs <= 0.5, void, {"requests": count},
    )  # fmt: skip
    gain = service_s * count / saturated[1]
    yield Figure(
        "B5", f"{subject.name}: throughput at saturation / one at a time", count / saturated[1], 1 / service_s,
        "pictures/s", gain, ">= 1.5", gain >= 1.5, "" if saturated[2] else "wrong result",
    )  # fmt: skip


def run() -> list[Figure]:
    torch.set_num_threads(1)
    figures: list[Figure] = []
    with _subjects() as (tiny, topology, demo):
        parts: list[Callable[[], Any]] = [
            lambda: _people(tiny, 3.0),
            lambda: _people(topology, 4.0),
            lambda: _people(demo, 1.5),
            lambda: _mixed_against_plain(tiny, 0.60),
            lambda: _mixed_against_plain(topology, 0.55),
            lambda: _mixed_against_plain(demo, 0.75),
            lambda: _mix_ready(topology),
            lambda: [_switch(topology)],
            lambda: [_first_step(topology)],
            lambda: [_first_step(demo)],
            lambda: _latency(topology),
        ]
        for part in parts:
            figures += part()
    return figures
