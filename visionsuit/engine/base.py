"""What an engine is: requests, progress, pictures, errors. Plain data; importing this loads no torch.

`Engine.render` may be called from several threads at once, up to `Engine.concurrency`. An engine that batches
continuously answers a high number there, less while what runs leaves no room, and shares denoising steps between the
calls inside; one that does not answers 1. Callers need to know no more than that; calls beyond the number wait inside.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from visionsuit.core.errors import InvalidInput, Unavailable


class Family(StrEnum):
    """Architecture of a base model; a LoRA works on its own family only."""

    SD1 = "sd1"
    SD2 = "sd2"
    SDXL = "sdxl"
    SD3 = "sd3"
    FLUX = "flux"
    OTHER = "other"


class Ability(StrEnum):
    """What a base model may be asked for beside a picture from a prompt."""

    LORAS = "loras"
    #: To begin with, also for a second pass.
    PICTURES = "pictures"
    #: What of such a picture is repainted.
    MASKS = "masks"
    VARIATIONS = "variations"


def samplers_for(family: str) -> dict[str, str]:
    """Those of SAMPLERS that base models of a family are rendered with."""
    if family not in FLOW_SAMPLERS:
        return dict(SAMPLERS)
    return {key: SAMPLERS[key] for key in samplers_of_flow(family)}


def samplers_of_flow(family: str) -> tuple[str, ...]:
    """Keys of SAMPLERS that there are for models of a family that flow in a straight line from noise to picture."""
    return FLOW_SAMPLERS.get(family, ("euler",))


class Phase(StrEnum):
    LOADING = "loading"
    ENCODING = "encoding"
    DENOISING = "denoising"
    #: In the background, while people render.
    WAITING = "waiting"
    DECODING = "decoding"
    SAVING = "saving"


#: Sampler names as A1111 users know them -> shown in pickers; the engine maps them to diffusers schedulers.
SAMPLERS: dict[str, str] = {
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_sde": "DPM++ SDE",
    "euler": "Euler",
    "euler_a": "Euler a",
    "heun": "Heun",
    "ddim": "DDIM",
    "unipc": "UniPC",
    "lcm": "LCM",
}
#: Of families whose models all flow in a straight line from noise to picture.
FLOW_SAMPLERS: dict[str, tuple[str, ...]] = {
    Family.SD3: ("dpmpp_2m", "euler", "heun", "unipc"),
    Family.FLUX: ("euler",),
}
SCHEDULES: dict[str, str] = {
    "default": "As the model says",
    "normal": "Normal",
    "karras": "Karras",
    "exponential": "Exponential",
    "beta": "Beta",
    "trailing": "Trailing",
}


#: Pictures per call that the reproducible mode may ask for.
BUCKETS = (1, 2, 4, 8)


#: Number formats of a base model's weights; `auto` is what its family and the device go best with.
AUTO_DTYPE = "auto"
DTYPES = (AUTO_DTYPE, "fp16", "bf16", "fp32")


@dataclass(frozen=True, slots=True)
class BaseModelRef:
    """A diffusers folder the engine may load. `key` identifies its content in caches, never a name; `dtype` is one of
    DTYPES."""

    key: str
    path: Path
    family: Family
    dtype: str = AUTO_DTYPE

    def in_dtype(self, dtype: str) -> "BaseModelRef":
        """The same one in another number format; a model of its own to every cache."""
        content = self.key.removesuffix(f"-{self.dtype}")
        return replace(self, key=content if dtype == AUTO_DTYPE else f"{content}-{dtype}", dtype=dtype)


@dataclass(frozen=True, slots=True)
class LoraRef:
    """One LoRA of a mix. `sha256` (hex) of the file identifies it in every cache.

    Weights are dimensionless factors; `text_encoder_weight` None means the same as `weight`.
    """

    sha256: str
    path: Path
    weight: float
    text_encoder_weight: float | None = None
    name: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class InitPicture:
    """A picture to begin with instead of noise alone.

    Attributes:
        pixels: uint8 of the render's size: [height, width, 3] for all seeds, or [pictures, height, width, 3], one for
            each seed.
        strength: in (0, 1]: the share of the steps that is run, and so how much may become different.
        mask: what is repainted, the rest stays as it is: [height, width], float in 0..1 or uint8 in 0..255, the
            largest value repaints. Values between make a soft edge. None repaints all.
    """

    pixels: NDArray[np.uint8]
    strength: float
    mask: NDArray[Any] | None = None

    def picture(self, number: int) -> NDArray[np.uint8]:
        """[height, width, 3], what the request's picture `number` begins with."""
        return self.pixels if self.pixels.ndim == 3 else self.pixels[number]

    def soft_mask(self) -> NDArray[np.float32] | None:
        """[height, width] in 0..1."""
        if self.mask is None:
            return None
        scale = 255.0 if self.mask.dtype == np.uint8 else 1.0
        return np.clip(self.mask.astype(np.float32) / scale, 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Variation:
    """Noise on the way from each picture's seed to another one: `strength` 0 is the picture itself, 1 the other's.

    `seeds`: the other ones, as many as the request has.
    """

    seeds: tuple[int, ...]
    strength: float


@dataclass(frozen=True, slots=True)
class RenderRequest:
    """One request. One picture a seed, each drawn from its own seed alone.

    Sizes in pixels; `seeds` are in [0, 2**32); `sampler` and `schedule` are keys of SAMPLERS and SCHEDULES. With a
    `bucket` (one of BUCKETS) every call has that many pictures, the missing ones filled up: the same request on the
    same device and libraries is then the same to the last bit, whatever else runs; without one, all but for rounding.
    One in the `background` stands while any that is not renders, and goes on where it was.
    """

    base_model: BaseModelRef
    prompt: str
    negative_prompt: str
    width: int
    height: int
    steps: int
    guidance: float
    seeds: tuple[int, ...]
    sampler: str
    schedule: str = "default"
    loras: tuple[LoraRef, ...] = ()
    init: InitPicture | None = None
    variation: Variation | None = None
    bucket: int = 0
    background: bool = False

    @property
    def steps_run(self) -> int:
        """Steps that each picture takes: a picture to begin with saves some."""
        return self.steps if self.init is None else steps_of(self.steps, self.init.strength)


def steps_of(steps: int, strength: float) -> int:
    """How many of `steps` are run from a picture at this strength, at least one."""
    return max(1, min(int(steps * strength), steps))


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a render is.

    `step` of `steps` counts over all pictures; `preview` is uint8 [h, w, 3] of the current latent, or None.
    """

    phase: Phase
    step: int
    steps: int
    preview: NDArray[np.uint8] | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """A finished picture: uint8 [height, width, 3], RGB."""

    pixels: NDArray[np.uint8]
    seed: int


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """For badges and telemetry. Memory in bytes, None where the device has no own memory."""

    name: str
    device: str
    ready: bool
    detail: str = ""
    #: Not ready yet, and nothing has gone wrong so far.
    starting: bool = False
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    loaded_models: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)


class EngineError(Exception):
    """A render cannot be done, for a reason that a person can read. `code` is stable."""

    code: ClassVar[str] = "engine_error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class RenderCancelled(EngineError):
    code = "cancelled"


class OutOfDeviceMemory(EngineError):
    code = "out_of_memory"


class ModelUnloadable(EngineError):
    code = "base_model_unloadable"


class LoraUnloadable(EngineError):
    code = "lora_unloadable"


class IncompatibleLora(InvalidInput):
    """The LoRA was made for another architecture; known from its header, before queueing."""

    code = "lora_incompatible"


class EngineNotReady(Unavailable):
    code = "engine_not_ready"


class Engine(Protocol):
    @property
    def concurrency(self) -> int:
        """How many `render` calls may run at once, those in the background not counted. It changes with what runs: ask
        before each."""

    def start(self) -> None:
        """Load libraries and find the device. Slow; called once, in the worker's thread."""

    def render(
        self, request: RenderRequest, *, on_progress: Callable[[Progress], None], is_cancelled: Callable[[], bool]
    ) -> list[Picture]:
        """Render all pictures of `request`, in the order of its seeds. Blocks.

        `is_cancelled` is asked at least once a step.

        Raises:
            RenderCancelled: `is_cancelled` answered True.
            OutOfDeviceMemory, ModelUnloadable, LoraUnloadable: with the reason as a sentence.
        """

    def status(self) -> EngineStatus:
        """Cheap, from any thread, also before `start`."""

    def close(self) -> None:
        """Free the device."""
