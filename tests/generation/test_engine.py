"""The whole way with the real engine: a tiny pipeline of the true kind, and the model that ships."""

import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import People
from tests.engine.tiny import make_lora, make_tiny_sd
from tests.generation.conftest import finished, make_card, order, show, submit
from tests.jobs.conftest import until
from visionsuit.core.config import Settings, StorageSettings
from visionsuit.engine.diffusers_engine import DiffusersEngine
from visionsuit.generation import service
from visionsuit.generation.base_models import default_of, list_offered, sync_base_models
from visionsuit.generation.files import local_lora
from visionsuit.generation.order import Borders, HiresOrder, InitOrder, LoraOrder
from visionsuit.generation.schemas import GenerationOut
from visionsuit.jobs.worker import Worker
from visionsuit.objects.service import write
from visionsuit.runtime import Runtime
from visionsuit.schedule import HANDLERS
from visionsuit.storage.base import Bucket
from visionsuit.storage.factory import create_storage
from visionsuit.storage.folder import FolderStorage


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_tiny_sd(folder / "tiny")
    return folder


@pytest.fixture
def settings(tmp_path: Path, models_dir: Path) -> Settings:
    return Settings(_env_file=None, data_dir=tmp_path / "data", models_dir=models_dir, worker=False)  # type: ignore[call-arg]


@pytest.fixture
def tiny_site(runtime: Runtime) -> Iterator[Runtime]:
    engine = DiffusersEngine(device="cpu", threads=1)
    site = replace(runtime, engine=engine)
    sync_base_models(site)
    yield site
    engine.close()


@pytest.fixture
def run_worker() -> Iterator[Callable[[Runtime], None]]:
    workers: list[Worker] = []

    def run(site: Runtime) -> None:
        workers.append(Worker(site, HANDLERS, warm_up_after_s=0))
        workers[-1].start()

    yield run
    for worker in workers:
        worker.stop()


def pixels(site: Runtime, shown: GenerationOut, number: int = 0) -> np.ndarray:
    assert shown.status == "completed", shown.error
    data = site.storage.read_bytes(Bucket.OUTPUTS, shown.images[number].url.rpartition("/")[2])
    return np.asarray(Image.open(io.BytesIO(data)))


def test_a_mix_of_two_changes_the_picture_and_can_be_repeated(
    tiny_site: Runtime, people: People, models_dir: Path, tmp_path: Path, run_worker: Callable[[Runtime], None]
) -> None:
    cards = []
    for number, kind in enumerate(("kohya", "diffusers")):
        make_lora(tmp_path / f"{kind}.safetensors", models_dir / "tiny", kind=kind, text_encoder=True, seed=number)  # type: ignore[arg-type]
        data = (tmp_path / f"{kind}.safetensors").read_bytes()
        cards.append(make_card(tiny_site, people.curator, kind, data=data))
    run_worker(tiny_site)
    mix = tuple(LoraOrder(card.public_id, weight=0.8) for card in cards)

    def render(**more: object) -> np.ndarray:
        wanted = order("a red cat", width=64, height=64, steps=4, **more)
        return pixels(tiny_site, finished(tiny_site, people.user, submit(tiny_site, people.user, wanted), 120))

    plain, mixed, again = render(), render(loras=mix), render(loras=mix)
    assert plain.shape == (64, 64, 3)
    assert np.array_equal(mixed, again)
    assert np.abs(mixed.astype(int) - plain).mean() > 2
    assert np.array_equal(render(), plain)  # nothing of the mix stays behind


def test_pictures_of_one_request_are_those_of_their_seeds(
    tiny_site: Runtime, people: People, run_worker: Callable[[Runtime], None]
) -> None:
    run_worker(tiny_site)
    wanted = order("a dog", width=64, height=64, steps=2, count=2, seed=11)
    both = finished(tiny_site, people.user, submit(tiny_site, people.user, wanted), 120)
    second = finished(tiny_site, people.user, submit(tiny_site, people.user, replace(wanted, count=1, seed=12)), 120)
    assert np.abs(pixels(tiny_site, both, 1).astype(int) - pixels(tiny_site, second)).max() <= 1


def test_a_result_is_worked_on_and_made_larger(
    tiny_site: Runtime, people: People, run_worker: Callable[[Runtime], None]
) -> None:
    run_worker(tiny_site)
    wanted = order("a dog", width=64, height=64, steps=4)
    first = finished(tiny_site, people.user, submit(tiny_site, people.user, wanted), 120)
    init = InitOrder(generation_image_id=first.images[0].id, strength=0.5, outpaint=Borders(right=32), mask_blur=0)
    wider = replace(wanted, width=96, init=init)
    grown = finished(tiny_site, people.user, submit(tiny_site, people.user, wider), 120)
    assert np.array_equal(pixels(tiny_site, grown)[:, :64], pixels(tiny_site, first))
    upscaled = replace(wanted, init=replace(init, strength=0.0, outpaint=None), hires=HiresOrder(1.5, 0.25))
    larger = finished(tiny_site, people.user, submit(tiny_site, people.user, upscaled), 120)
    assert pixels(tiny_site, larger).shape == (96, 96, 3)
    assert (larger.step, larger.steps) == (1, 1)


def test_a_running_render_is_cancelled_inside(
    tiny_site: Runtime, people: People, run_worker: Callable[[Runtime], None]
) -> None:
    run_worker(tiny_site)
    generation_id = submit(tiny_site, people.user, order("a dog", width=64, height=64, steps=200, count=8))
    until(lambda: show(tiny_site, people.user, generation_id).step >= 2, 120)
    assert (show(tiny_site, people.user, generation_id).preview or "").startswith("data:image/webp")
    with tiny_site.open_ctx(people.user) as ctx:
        service.cancel(ctx, generation_id)
    assert finished(tiny_site, people.user, generation_id, 10).status == "cancelled"


def test_lora_files_come_from_a_distant_storage_once(
    tiny_site: Runtime,
    people: People,
    models_dir: Path,
    tmp_path: Path,
    run_worker: Callable[[Runtime], None],
    s3_settings: StorageSettings,
) -> None:
    storage = s3_settings.model_copy(update={"bucket_prefix": "generation-"})
    far = replace(tiny_site, storage=create_storage(tiny_site.settings.model_copy(update={"storage": storage})))
    far.storage.prepare()
    sha256 = make_lora(tmp_path / "a.safetensors", models_dir / "tiny")
    card = make_card(far, people.curator, data=(tmp_path / "a.safetensors").read_bytes())
    run_worker(far)
    wanted = order("a cat", width=64, height=64, steps=2, loras=(LoraOrder(card.public_id),))
    pixels(far, finished(far, people.user, submit(far, people.user, wanted), 120))
    cached = far.settings.data_dir / "cache" / "loras" / f"{sha256}.safetensors"
    first = cached.stat().st_ino
    pixels(far, finished(far, people.user, submit(far, people.user, wanted), 120))
    assert cached.stat().st_ino == first
    assert [path.name for path in cached.parent.iterdir()] == [cached.name]


class SlowStorage(FolderStorage):
    """Far away; `slow` comes when it may."""

    slow = ""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.asked, self.may_come = threading.Event(), threading.Event()

    def local_path(self, bucket: Bucket, object_id: str) -> Path | None:
        return None

    def read(self, bucket: Bucket, object_id: str, *place: int | None) -> Iterator[bytes]:
        if object_id == self.slow:
            self.asked.set()
            assert self.may_come.wait(20)
        yield from super().read(bucket, object_id, *place)


def test_a_lora_that_comes_slowly_holds_up_no_other(runtime: Runtime) -> None:
    storage = SlowStorage(runtime.settings.storage_folder)
    far = replace(runtime, storage=storage)
    files = [write(far, Bucket.MODELS, data, mime="", file_name="") for data in (b"slow", b"quick", b"late")]
    storage.slow = files[0].object_id

    def fetch(number: int) -> bytes:
        return local_lora(far, files[number].object_id, files[number].sha256).read_bytes()

    assert fetch(1) == b"quick"
    with ThreadPoolExecutor() as pool:
        try:
            slow = [pool.submit(fetch, 0) for _ in range(2)]
            assert storage.asked.wait(20)
            assert pool.submit(fetch, 1).result(5) == b"quick"
            assert pool.submit(fetch, 2).result(5) == b"late"
        finally:
            storage.may_come.set()
        assert [one.result(20) for one in slow] == [b"slow"] * 2


def test_the_list_of_base_models_follows_the_folder(
    runtime: Runtime, people: People, tmp_path: Path, models_dir: Path
) -> None:
    import shutil

    folder = tmp_path / "models"
    site = replace(runtime, settings=runtime.settings.model_copy(update={"models_dir": folder}))
    shutil.copytree(models_dir / "tiny", folder / "alpha")
    shutil.copytree(models_dir / "tiny", folder / "demo")

    def offered() -> list[tuple[str, bool]]:
        sync_base_models(site)
        with site.open_ctx(people.user, read_only=True) as ctx:
            rows = list_offered(ctx)
            return [(row.folder, row is default_of(rows)) for row in rows]

    assert offered() == [("demo", True), ("alpha", False)]
    shutil.move(folder / "demo", tmp_path / "away")
    (folder / "broken").mkdir()
    (folder / "broken" / "model_index.json").write_text("{")
    assert offered() == [("alpha", True)]
    shutil.move(tmp_path / "away", folder / "demo")
    assert offered() == [("demo", True), ("alpha", False)]
