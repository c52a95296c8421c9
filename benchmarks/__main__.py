"""`python -m benchmarks [id ...]`: run the benchmarks, print the table, write data/bench.json."""

import argparse
import importlib
import os
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from benchmarks.harness import Figure, machine, save, table

#: id -> module and function that gives `list[Figure]`, the quick ones first.
BENCHMARKS = {
    "B14": ("benchmarks.cold_start", "run"),
    "B10": ("benchmarks.ingest", "run"),
    "B8": ("benchmarks.upload", "run"),
    "B7": ("benchmarks.explorer", "run"),
    "render": ("benchmarks.render", "run"),
    "B6": ("benchmarks.queue", "run"),
    "meter": ("benchmarks.meter", "run"),
    "B1": ("benchmarks.batching", "run_people"),
    "B1-queue": ("benchmarks.platform", "run"),
    "B2": ("benchmarks.batching", "run_mixed"),
    "B4": ("benchmarks.batching", "run_ready"),
    "B5": ("benchmarks.batching", "run_latency"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ids", nargs="*", choices=[*BENCHMARKS, []], help="which; all if none is named")
    parser.add_argument("--out", type=Path, default=Path("data/bench.json"))
    options = parser.parse_args()
    figures: list[Figure] = []
    for id in options.ids or BENCHMARKS:
        print(f"{id} ...", file=sys.stderr, flush=True)
        module, function = BENCHMARKS[id]
        taken: list[Figure] = getattr(importlib.import_module(module), function)()
        print(table(taken), file=sys.stderr, flush=True)
        figures += taken
    save(figures, options.out)
    told = machine()
    print(f"{told['cpu']}, {told['cores']} cores, Python {told['python']}, {told['versions']}\n")
    print(table(figures))
    sys.exit(any(figure.void == "wrong result" for figure in figures))


if __name__ == "__main__":
    main()
