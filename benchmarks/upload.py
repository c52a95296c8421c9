"""B8: a large LoRA over HTTP as one raw stream (hashed, verified from its header, with its rows) against `cp`; and how
much the server's memory grows meanwhile.
"""

import json
import os
import subprocess
import tempfile
import threading
from http.client import HTTPConnection
from itertools import count
from pathlib import Path

import numpy as np
import psutil
from safetensors.numpy import save

from benchmarks.harness import Figure, compare
from tests.server import Server

GIB = int(float(os.environ.get("VISIONSUIT_BENCH_GIB", "1")) * 1024**3)
BLOCK = 4 * 1024**2
MEMORY_BYTES = 64 * 1024**2


def write_lora(path: Path) -> None:
    """A file with the header of a LoRA and about a gigabyte of weights, written block by block."""
    pair = {
        f"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.{part}.weight": np.zeros(
            shape, dtype=np.float16
        )
        for part, shape in (("lora_down", (4, 320)), ("lora_up", (320, 4)))
    }
    small = save(pair)
    length = int.from_bytes(small[:8], "little")
    header, body = json.loads(small[8 : 8 + length]), small[8 + length :]
    extra = (GIB - len(body)) // 2 * 2
    header["padding"] = {"dtype": "F16", "shape": [extra // 2], "data_offsets": [len(body), len(body) + extra]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    block = np.random.default_rng(1).bytes(BLOCK)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text + body)
        while extra:
            extra -= file.write(block[: min(extra, BLOCK)])


class PeakMemory:
    """Most resident bytes of a process while it is watched, beyond what it began with."""

    def __init__(self, pid: int) -> None:
        self.grown = 0
        self._done = threading.Event()
        self._process = psutil.Process(pid)

    def __enter__(self) -> "PeakMemory":
        self._start = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self.grown = max(self.grown, self._process.memory_info().rss - self._start)

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def run() -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="visionsuit-bench-") as folder:
        source, target = Path(folder) / "large.safetensors", Path(folder) / "copy"
        write_lora(source)
        serial = count()
        with Server(Path(folder) / "data", VISIONSUIT_LOG_LEVEL="ERROR") as site:
            assert site.process is not None
            memory = PeakMemory(site.process.pid)
            headers = {"Authorization": site.admin().headers["Authorization"]}

            def call(method: str, path: str, body: object = None, **more: str) -> dict[str, object]:
                connection = HTTPConnection("127.0.0.1", site.port, timeout=600, blocksize=BLOCK)
                connection.request(method, path, body=body, headers=headers | more)  # type: ignore[arg-type]
                answer = connection.getresponse()
                data = answer.read()
                assert answer.status < 300, data
                connection.close()
                return dict(json.loads(data or b"{}"))

            def upload() -> None:
                # Another last byte: the same bytes twice would be a duplicate.
                with source.open("r+b") as file:
                    file.seek(-1, os.SEEK_END)
                    file.write(bytes([next(serial) % 256]))
                announced = {"kind": "model", "files": [{"name": "large.safetensors", "role": "weights"}]}
                draft = call(
                    "POST", "/api/uploads/drafts", json.dumps(announced), **{"Content-Type": "application/json"}
                )
                with source.open("rb") as file:
                    path = f"/api/uploads/drafts/{draft['id']}/files/0"
                    call("PUT", path, file, **{"Content-Length": str(source.stat().st_size)})
                call("DELETE", f"/api/uploads/drafts/{draft['id']}")

            def copy() -> None:
                subprocess.run(["cp", str(source), str(target)], check=True)
                target.unlink()

            with memory:
                figure = compare(
                    "B8",
                    f"upload of {GIB / 1024**3:g} GiB with hash and rows / `cp`, speed",
                    upload,
                    copy,
                    target=0.4,
                    rounds=5,
                    faster_is_more=True,
                )
    grown = Figure(
        "B8",
        "memory of the server grown during the uploads",
        memory.grown / 1024**2,
        MEMORY_BYTES / 1024**2,
        "MiB",
        memory.grown / MEMORY_BYTES,
        "< 1",
        memory.grown < MEMORY_BYTES,
    )
    return [figure, grown]
