"""Which device, in which number format, with how many threads; and what its memory says."""

import gc
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from visionsuit.engine.base import AUTO_DTYPE, EngineError, Family

#: Bytes that one pixel of one picture may take while denoising (both guidance rows); measured on SD 1.5 and SDXL in
#: half precision.
BYTES_PER_PIXEL = 4096
#: Most pictures that share a denoising step: past this a step only grows longer.
MAX_BATCH = 8
_CPU_BATCH_PIXELS = 512 * 512
#: Of the container that this may run in.
_CGROUP = Path("/sys/fs/cgroup")


_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True)
class Device:
    """`kind` as torch calls it."""

    kind: str
    label: str

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.kind)

    @property
    def owner(self) -> str:
        """Whose memory it is, in a sentence."""
        return self.label if self.has_own_memory else "this machine"

    @property
    def has_own_memory(self) -> bool:
        """Whether weights can be in host memory and not on the device."""
        return self.memory() is not None

    def dtype_for(self, family: Family, wish: str = AUTO_DTYPE) -> torch.dtype:
        """One of DTYPES as torch has it. `auto`: fp32 on a CPU (half precision is 40 times slower there), else fp16;
        SD 2.x and SD 3 overflow in fp16, and so do some of those that are rendered whole."""
        if wish != AUTO_DTYPE:
            return _DTYPES[wish]
        if self.kind == "cpu":
            return torch.float32
        if family not in (Family.SD1, Family.SDXL) and self.kind == "cuda" and torch.cuda.is_bf16_supported():
            return torch.bfloat16
        return torch.float16

    def memory(self) -> tuple[int, int] | None:
        """(used, total) bytes of the device's own memory, None where it has none."""
        if self.kind != "cuda":
            return None
        free, total = torch.cuda.mem_get_info()
        return total - free, total

    def free_memory(self) -> int:
        """Bytes that may still be allocated, about."""
        memory = self.memory()
        if memory is None:
            return available_host_memory()
        kept = torch.cuda.memory_reserved() - torch.cuda.memory_allocated() if self.kind == "cuda" else 0
        return memory[1] - memory[0] + kept

    def memory_budget(self) -> int:
        """Bytes that loaded base models may take together."""
        memory = self.memory()
        if memory is not None:
            return int(memory[1] * 0.6)
        return int(host_memory() * 0.4)

    def host_budget(self) -> int:
        """Bytes of host memory for weights of base models that are not on the device."""
        return int(host_memory() * 0.5)

    def lora_budget(self) -> int:
        """Bytes of host memory for the parsed LoRAs of one base model."""
        return int(host_memory() * 0.1)

    def batch_for(self, width: int, height: int) -> int:
        """How many pictures of this size share one call of the UNet; at least one."""
        if self.memory() is None:
            return max(1, min(MAX_BATCH, _CPU_BATCH_PIXELS // (width * height)))
        return max(1, min(MAX_BATCH, int(self.free_memory() * 0.7) // self.picture_bytes(width, height)))

    @staticmethod
    def picture_bytes(width: int, height: int) -> int:
        """What denoising one picture takes beside the weights, about."""
        return width * height * BYTES_PER_PIXEL

    def place(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor in host memory, on the device."""
        return tensor.to(self.torch_device, non_blocking=True)

    def fetch(self, tensor: torch.Tensor, *, pinned: bool) -> torch.Tensor:
        """A tensor on the device, in host memory. `pinned`: it will be placed quickly, and takes time to make."""
        if self.kind != "cuda":
            return tensor.to("cpu")
        return torch.empty_like(tensor, device="cpu", pin_memory=pinned).copy_(tensor)

    def free_cached(self, *, with_cycles: bool = True) -> None:
        """Memory that torch keeps for later. `with_cycles`: what only a collection of garbage lets go of, which takes
        a while."""
        if with_cycles:
            gc.collect()
        if self.kind == "cuda":
            torch.cuda.empty_cache()
        elif self.kind == "mps":
            torch.mps.empty_cache()


def host_memory() -> int:
    """Bytes of this machine's memory, or of its container's."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _read(_CGROUP / "memory.max")
    return min(machine, int(limit)) if limit.strip().isdigit() else machine


def available_host_memory() -> int:
    """Bytes that the host, or its container, could give without swapping; half of all where the system does not say."""
    available = _bytes_in(_read(Path("/proc/meminfo")), "MemAvailable:")
    total = host_memory()
    # What is cached of files is given up, so only the rest of a container's memory is gone.
    taken = _bytes_in(_read(_CGROUP / "memory.stat"), "anon")
    return min(total // 2 if available is None else available * 1024, max(0, total - (taken or 0)))


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except OSError:
        return ""


def _bytes_in(table: str, name: str) -> int | None:
    rows = (line.split() for line in table.splitlines())
    return next((int(row[1]) for row in rows if row[:1] == [name]), None)


def choose_device(wish: str) -> Device:
    """`auto` takes the fastest that is there.

    Raises:
        EngineError: the named device is not there.
    """
    if wish in ("auto", "cuda") and torch.cuda.is_available():
        return Device("cuda", torch.cuda.get_device_name())
    if wish in ("auto", "mps") and torch.backends.mps.is_available():
        return Device("mps", "Apple GPU")
    if wish in ("auto", "cpu"):
        return Device("cpu", "CPU")
    raise EngineError(f"The device {wish!r} is not available on this machine; `auto` finds one that is.")


def set_threads(threads: int | None) -> int:
    """Set torch's CPU threads: `threads`, else OMP_NUM_THREADS, else the cores this process may use."""
    if threads is None:
        asked = os.environ.get("OMP_NUM_THREADS", "")
        threads = int(asked) if asked.isdigit() and int(asked) > 0 else _cores()
    torch.set_num_threads(threads)
    return threads


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the host ran out of memory; only CUDA has an exception of its own for it."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        sign in str(error) for sign in ("out of memory", "not enough memory", "can't allocate memory")
    )
