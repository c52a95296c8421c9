"""The engine without the app: a base model, LoRA files, pictures. For notebooks and scripts.

    from visionsuit.engine import open_painter

    with open_painter("models_cache/demo") as paint:
        picture, = paint("red heart", seed=7)
        mixed = paint("red heart", seed=7, loras={"outlined.safetensors": 0.8, "night.safetensors": -0.3})
        grid = paint.many([{"prompt": "red heart", "seed": 7, "steps": n} for n in (4, 8, 12)])

`paint.many` renders side by side in shared calls, as the server does for many people.
"""

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visionsuit.engine.base import Engine, InitPicture, LoraRef, Progress, RenderRequest
from visionsuit.engine.catalog import BaseModelInfo, read_base_model

#: A LoRA file's weight, or its weights in the denoiser and in the text encoders.
Weight = float | tuple[float, float]


@contextmanager
def open_painter(model: str | Path, *, device: str = "auto", threads: int | None = None) -> Iterator["Painter"]:
    """A base model (a diffusers folder or a checkpoint) ready to render.

    Args:
        device: `auto`, `cuda`, `mps` or `cpu`.
        threads: CPU threads of torch; the number of cores if None.

    Raises:
        ModelUnloadable: it is no base model that is rendered here.
        EngineError: the device is not there.
    """
    from visionsuit.engine.diffusers_engine import DiffusersEngine

    info = read_base_model(Path(model).resolve())
    engine = DiffusersEngine(device=device, threads=threads)
    engine.start()
    try:
        yield Painter(engine, info)
    finally:
        engine.close()


class Painter:
    """Calls render; all that is not said is as the base model's card says. Any thread may call, several at once."""

    def __init__(self, engine: Engine, model: BaseModelInfo) -> None:
        self.engine = engine
        self.model = model
        self._hashes: dict[tuple[Path, int, int], str] = {}

    def __call__(
        self,
        prompt: str,
        *,
        on_progress: Callable[[Progress], None] = lambda _: None,
        is_cancelled: Callable[[], bool] = lambda: False,
        **options: Any,
    ) -> list[Image.Image]:
        """One picture a seed; `options` are those of `request`.

        Raises:
            EngineError: with the reason as a sentence.
        """
        request = self.request(prompt, **options)
        pictures = self.engine.render(request, on_progress=on_progress, is_cancelled=is_cancelled)
        return [Image.fromarray(picture.pixels) for picture in pictures]

    def many(self, calls: Sequence[Mapping[str, Any]]) -> list[list[Image.Image]]:
        """Several calls side by side, each as the keyword arguments of one; answers in their order."""
        with ThreadPoolExecutor(max(1, len(calls))) as pool:
            return list(pool.map(lambda options: self(**options), calls))

    def request(
        self,
        prompt: str,
        *,
        negative_prompt: str = "",
        loras: Mapping[str | Path, Weight] | Sequence[LoraRef] = (),
        seed: int | Sequence[int] | None = None,
        width: int | None = None,
        height: int | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        sampler: str | None = None,
        schedule: str | None = None,
        init: Image.Image | NDArray[np.uint8] | None = None,
        strength: float = 0.6,
        mask: NDArray[Any] | None = None,
        bucket: int = 0,
    ) -> RenderRequest:
        """What `__call__` renders.

        Args:
            loras: file -> weight.
            seed: one, or one per picture; random if None.
            width, height: pixels.
            init: a picture of that size to begin with; `strength` in (0, 1] is the share of the steps that is run,
                `mask` [height, width] says what is repainted.
            bucket: pictures of every call in the reproducible mode, see `RenderRequest`.
        """
        default = self.model.default
        seeds = (random.randrange(2**32) if seed is None else seed,) if not isinstance(seed, Sequence) else tuple(seed)
        refs = tuple(loras) if not isinstance(loras, Mapping) else tuple(self._ref(*entry) for entry in loras.items())
        start = None if init is None else InitPicture(np.asarray(init, np.uint8), strength, mask)
        return RenderRequest(
            base_model=self.model.ref,
            prompt=prompt,
            negative_prompt=negative_prompt,
            width=width or default.width,
            height=height or default.height,
            steps=steps or default.steps,
            guidance=default.guidance if guidance is None else guidance,
            seeds=seeds,
            sampler=sampler or default.sampler,
            schedule=schedule or default.schedule,
            loras=refs,
            init=start,
            bucket=bucket,
        )

    def _ref(self, file: str | Path, weight: Weight) -> LoraRef:
        path = Path(file).resolve()
        stat = path.stat()
        stamp = (path, stat.st_mtime_ns, stat.st_size)
        if stamp not in self._hashes:
            with path.open("rb") as opened:
                self._hashes[stamp] = hashlib.file_digest(opened, "sha256").hexdigest()
        of_unet, of_text = weight if isinstance(weight, tuple) else (weight, None)
        return LoraRef(self._hashes[stamp], path, of_unet, of_text, name=path.stem)
