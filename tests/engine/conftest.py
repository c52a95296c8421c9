"""One started engine for the whole area, tiny models of both families, and a way to render in one line."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.engine.tiny import DEMO, make_tiny_sd, make_tiny_sdxl
from tests.engine.tiny_flux import make_tiny_flux
from visionsuit.engine.base import LoraRef, Progress, RenderRequest
from visionsuit.engine.catalog import BaseModelInfo, read_base_model
from visionsuit.engine.diffusers_engine import DiffusersEngine


@pytest.fixture(scope="session")
def engine() -> Iterator[DiffusersEngine]:
    engine = DiffusersEngine(device="cpu", threads=1)
    engine.start()
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_flux(tmp_path_factory.mktemp("whole") / "flux")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, flux: Path) -> dict[str, BaseModelInfo]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "sd": read_base_model(make_tiny_sd(folder / "sd")),
        "sdxl": read_base_model(make_tiny_sdxl(folder / "sdxl")),
        "inpainting": read_base_model(make_tiny_sd(folder / "inpainting", inpainting=True)),
        "demo": read_base_model(DEMO),
        "flux": read_base_model(flux),
    }


@dataclass(frozen=True)
class Renderer:
    """`renderer("sd", seeds=(1, 2))` -> int16 pictures, so that differences do not wrap around."""

    engine: DiffusersEngine
    models: dict[str, BaseModelInfo]

    def __call__(
        self,
        model: str,
        prompt: str = "red heart",
        *,
        negative_prompt: str = "",
        seeds: Sequence[int] = (7,),
        steps: int = 4,
        guidance: float = 4.0,
        size: tuple[int, int] = (64, 64),
        sampler: str = "dpmpp_2m",
        schedule: str = "trailing",
        loras: Sequence[LoraRef] = (),
        on_progress: Callable[[Progress], None] = lambda _: None,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> list[NDArray[np.int16]]:
        request = RenderRequest(
            base_model=self.models[model].ref,
            prompt=prompt,
            negative_prompt=negative_prompt,
            width=size[0],
            height=size[1],
            steps=steps,
            guidance=guidance,
            seeds=tuple(seeds),
            sampler=sampler,
            schedule=schedule,
            loras=tuple(loras),
        )
        pictures = self.engine.render(request, on_progress=on_progress, is_cancelled=is_cancelled)
        assert [picture.seed for picture in pictures] == list(seeds)
        return [picture.pixels.astype(np.int16) for picture in pictures]


@pytest.fixture
def renderer(engine: DiffusersEngine, models: dict[str, BaseModelInfo]) -> Renderer:
    return Renderer(engine, models)


@pytest.fixture
def lora_folder(tmp_path: Path) -> Path:
    return tmp_path / "loras"
