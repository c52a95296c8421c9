"""How a figure is taken: sides interleaved, several rounds, medians, and void when the machine was too noisy.

Times on a shared machine mean little by themselves; the ratio of two sides measured turn by turn means something. A
figure whose own halves differ by more than NOISE is void, and so is one whose correctness gate fails.
"""

import json
import os
import platform
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

NOISE = 0.15


@dataclass
class Figure:
    """One row of the table. `ratio` is ours / reference (or reference / ours where the name says speed-up)."""

    id: str
    what: str
    ours: float
    reference: float
    unit: str
    ratio: float
    target: str
    met: bool
    void: str = ""
    detail: dict[str, object] = field(default_factory=dict)


def interleave(*sides: Callable[[], object], rounds: int = 7, warm_up: int = 1) -> list[list[float]]:
    """Seconds of each round of each side, taken turn by turn: A, B, A, B, ..."""
    for _ in range(warm_up):
        for side in sides:
            side()
    times: list[list[float]] = [[] for _ in sides]
    for _ in range(rounds):
        for taken, side in zip(times, sides, strict=True):
            began = time.perf_counter()
            side()
            taken.append(time.perf_counter() - began)
    return times


def at_once(work: Callable[[int], None], count: int) -> None:
    """`work(0)` to `work(count - 1)`, each in a thread of its own, until all are done."""
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def noise(times: list[float]) -> float:
    """How much the best of the even rounds and the best of the odd rounds differ, relative to the best."""
    even, odd = min(times[::2]), min(times[1::2])
    return abs(even - odd) / min(even, odd)


def compare(
    id: str,
    what: str,
    ours: Callable[[], object],
    reference: Callable[[], object],
    *,
    target: float,
    rounds: int = 7,
    unit: str = "s",
    correct: Callable[[], bool] = lambda: True,
    faster_is_more: bool = False,
    warm_up: int = 1,
) -> Figure:
    """Ratio of the two sides' best times: ours / reference, met when at most `target`.

    With `faster_is_more` it is the ratio of speeds, reference / ours, met when at least `target`.
    """
    times = interleave(ours, reference, rounds=rounds, warm_up=warm_up)
    mine, theirs = min(times[0]), min(times[1])
    void = ""
    if not correct():
        void = "wrong result"
    elif max(noise(times[0]), noise(times[1])) > NOISE:
        void = f"noisy ({noise(times[0]):.0%}, {noise(times[1]):.0%})"
    ratio = theirs / mine if faster_is_more else mine / theirs
    met = ratio >= target if faster_is_more else ratio <= target
    detail: dict[str, object] = {
        "median_ours_s": statistics.median(times[0]),
        "median_reference_s": statistics.median(times[1]),
        "rounds": rounds,
    }
    sign = ">=" if faster_is_more else "<="
    return Figure(id, what, mine, theirs, unit, ratio, f"{sign} {target}", met, void, detail)


def machine() -> dict[str, object]:
    """What the figures were taken on."""
    model = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        model = next(
            (line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")),
            model,
        )
    packages = ("torch", "diffusers", "peft", "gradio", "fastapi", "sqlalchemy", "pillow")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
        "versions": {name: version(name) for name in packages},
    }


def table(figures: list[Figure]) -> str:
    """Markdown, as the README quotes it."""
    lines = ["| id | what | ours | reference | ratio | target | |", "|---|---|---|---|---|---|---|"]
    for figure in figures:
        state = f"void: {figure.void}" if figure.void else ("met" if figure.met else "missed")
        lines.append(
            f"| {figure.id} | {figure.what} | {figure.ours:.3g} {figure.unit} | {figure.reference:.3g} {figure.unit} "
            f"| {figure.ratio:.2f} | {figure.target} | {state} |"
        )
    return "\n".join(lines)


def save(figures: list[Figure], path: Path) -> None:
    """JSON with machine and versions, beside the table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), "figures": [asdict(figure) for figure in figures]}, indent=2))
