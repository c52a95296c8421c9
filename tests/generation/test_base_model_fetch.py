"""Base models from a hub: the right files, whole, whatever happens on the way."""

import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from pydantic import SecretStr
from safetensors.torch import save_file
from starlette.testclient import TestClient

from tests.conftest import People
from tests.engine.tiny import make_tiny_sd
from tests.hub_server import FakeHub, serve_hub
from tests.jobs.conftest import until
from tests.postgres import both_databases
from visionsuit.core.actor import SYSTEM
from visionsuit.core.config import HubSettings, Settings
from visionsuit.engine.catalog import read_base_model
from visionsuit.generation import base_model_admin
from visionsuit.generation import hub as hub_module
from visionsuit.generation.base_model_fetch import FETCH_QUEUE, fetch, fetching_dir
from visionsuit.generation.hub import HubFile, HubRepo, is_allowed
from visionsuit.generation.hub_choice import choose_folder
from visionsuit.jobs import claims
from visionsuit.jobs.tables import Job
from visionsuit.jobs.work import Finish, Work
from visionsuit.main import guarded
from visionsuit.runtime import Runtime
from visionsuit.schedule import create_fetcher

Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_sd(tmp_path_factory.mktemp("tiny") / "sd")


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with serve_hub() as served:
        yield served


@pytest.fixture
def site(runtime: Runtime, hub: FakeHub, tmp_path: Path) -> Runtime:
    settings = runtime.settings.model_copy(
        update={"models_dir": tmp_path / "models", "hub": HubSettings(endpoint=hub.url, reserve_bytes=0)}
    )
    settings.models_dir.mkdir()
    return replace(runtime, settings=settings)


@pytest.fixture
def fetcher(site: Runtime) -> Iterator[None]:
    worker = create_fetcher(site)
    worker.start()
    yield
    worker.stop()


@pytest.fixture
def ask(site: Runtime, api: FastAPI, people: People, bearer: Callable[..., dict[str, str]]) -> Iterator[Ask]:
    """`ask("POST", "", json)` on /api/base-models as an administrator."""
    headers = bearer(people.admin)
    app = guarded(api, site)
    with TestClient(app, base_url="http://127.0.0.1:7860") as client:  # type: ignore[arg-type]

        def call(method: str, path: str, json: Any = None, status: int | None = None) -> Any:
            answer = client.request(method, f"/api/base-models{path}", json=json, headers=headers)
            assert answer.status_code == (status or answer.status_code), answer.text
            assert answer.status_code < 500, answer.text
            return answer.json() if answer.content else None

        yield call


def only(ask: Ask) -> dict[str, Any]:
    [item] = ask("GET", "/all")["items"]
    return dict(item)


def ended(ask: Ask, timeout_s: float = 40) -> dict[str, Any]:
    until(lambda: only(ask)["fetch"]["status"] in ("completed", "failed", "cancelled"), timeout_s)
    return only(ask)


def begun(site: Runtime, added: dict[str, Any]) -> list[Path]:
    """Files of which a part is there."""
    parts = fetching_dir(site.settings.models_dir, added["id"]).rglob("*.part")
    return [part for part in parts if part.stat().st_size]


def fetch_in_hand(site: Runtime) -> Finish:
    """A download whose files are in place, as a worker has it before it writes that down."""
    with site.open_ctx(SYSTEM) as ctx:
        claim = claims.claim(ctx, "worker", FETCH_QUEUE)
    assert claim is not None
    return fetch(Work(site, claim, threading.Event()))


def count_jobs(site: Runtime) -> int:
    with site.open_ctx(SYSTEM, read_only=True) as ctx:
        return ctx.session.scalar(sa.select(sa.func.count()).select_from(Job)) or 0


@both_databases
@pytest.mark.usefixtures("fetcher")
def test_a_repository_comes_with_what_it_needs_and_nothing_else(
    ask: Ask, hub: FakeHub, site: Runtime, tiny: Path
) -> None:
    hub.add(
        "artist/Tiny-SD",
        tiny,
        **{
            "v1-5-pruned.safetensors": b"x" * 9000,
            "model.ckpt": b"pickle" * 2000,
            "unet/diffusion_pytorch_model.bin": b"pickle",
            "unet/run.py": b"import os",
            "safety_checker/model.safetensors": b"x",
            "README.md": b"# hi",
            "../evil.json": b"{}",
        },
    )
    added = ask("POST", "", {"repo_id": "artist/Tiny-SD", "label": "Tiny"}, status=201)
    assert (added["origin"], added["label"], added["trouble"]) == ("hub", "Tiny", "It is not downloaded yet.")
    done = ended(ask)
    assert done["fetch"]["status"] == "completed", done
    assert (done["fetch"]["percent"], done["trouble"], done["label"], done["family"]) == (100.0, None, "Tiny", "sd1")
    assert done["fetch"]["bytes"] == done["fetch"]["total_bytes"] > 10_000
    folder = site.settings.models_dir / "artist--Tiny-SD"
    got = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    assert got == {file.relative_to(tiny).as_posix() for file in tiny.rglob("*") if file.is_file()}
    assert read_base_model(folder).weights_bytes == read_base_model(tiny).weights_bytes
    assert not any((site.settings.models_dir / ".fetching").iterdir())
    assert not any(path.endswith((".bin", ".ckpt", ".py", ".md")) for _, path, _ in hub.requests)
    assert [item["label"] for item in ask("GET", "")["items"]] == ["Tiny"]


@pytest.mark.usefixtures("fetcher")
def test_a_cut_connection_goes_on_where_it_stopped(ask: Ask, hub: FakeHub, tiny: Path) -> None:
    hub.add("artist/tiny", tiny)
    hub.cut_after, hub.cuts = 150_000, 4
    ask("POST", "", {"repo_id": "artist/tiny"}, status=201)
    assert ended(ask)["fetch"]["status"] == "completed"
    assert sum(span == "bytes=150000-" for _, _, span in hub.requests) >= 2
    assert hub.cuts == 0


@pytest.mark.usefixtures("fetcher")
def test_cancelled_and_gone_on_with(ask: Ask, hub: FakeHub, site: Runtime, tiny: Path) -> None:
    hub.add("artist/tiny", tiny)
    hub.hold = threading.Event()
    added = ask("POST", "", {"repo_id": "artist/tiny"}, status=201)
    assert hub.held.wait(20)
    until(lambda: 0 < (only(ask)["fetch"]["percent"] or 0) < 100)
    until(lambda: begun(site, added))
    ask("POST", f"/{added['id']}/cancel", status=200)
    hub.hold.set()
    assert ended(ask)["fetch"]["status"] == "cancelled"
    assert not (site.settings.models_dir / "artist--tiny").exists()
    kept = begun(site, added)
    assert ask("GET", "")["items"] == []
    ask("POST", f"/{added['id']}/fetch", status=200)
    assert ended(ask)["fetch"]["status"] == "completed"
    assert kept
    assert any(hub.ranges(kept[0].name.removesuffix(".part")))
    assert ask("POST", f"/{added['id']}/fetch", status=409)


@pytest.mark.usefixtures("fetcher")
def test_what_somebody_put_under_its_name_meanwhile_stays(ask: Ask, hub: FakeHub, site: Runtime, tiny: Path) -> None:
    hub.add("artist/tiny", tiny).is_gated = True
    added = ask("POST", "", {"repo_id": "artist/tiny"}, status=201)
    assert ended(ask)["fetch"]["status"] == "failed"
    own = site.settings.models_dir / "artist--tiny"
    shutil.copytree(tiny, own)
    ask("POST", "/sync", status=200)
    ask("DELETE", f"/{added['id']}", status=204)
    assert (own / "model_index.json").is_file()


@both_databases
def test_deleted_when_its_files_had_just_come(ask: Ask, hub: FakeHub, site: Runtime, tiny: Path) -> None:
    hub.add("artist/tiny", tiny)
    added = ask("POST", "", {"repo_id": "artist/tiny"}, status=201)
    finish = fetch_in_hand(site)
    folder = site.settings.models_dir / "artist--tiny"
    assert folder.is_dir()
    ask("DELETE", f"/{added['id']}", status=204)
    finish()
    assert not folder.exists()
    assert ask("POST", "/sync", status=200)["items"] == []
    assert count_jobs(site) == 0


def test_what_is_listed_anew_when_its_download_ends_stays(ask: Ask, hub: FakeHub, site: Runtime, tiny: Path) -> None:
    hub.add("artist/tiny", tiny)
    added = ask("POST", "", {"repo_id": "artist/tiny"}, status=201)
    finish = fetch_in_hand(site)
    ask("DELETE", f"/{added['id']}", status=204)
    [found] = ask("POST", "/sync", status=200)["items"]
    finish()
    assert (found["origin"], only(ask)["trouble"], only(ask)["on_disk"]) == ("found", None, True)


@both_databases
@pytest.mark.usefixtures("fetcher")
def test_tries_leave_one_job_and_a_deletion_none(ask: Ask, site: Runtime) -> None:
    added = ask("POST", "", {"repo_id": "artist/nothing"}, status=201)
    for _ in range(3):
        assert ended(ask)["fetch"]["status"] == "failed"
        ask("POST", f"/{added['id']}/fetch", status=200)
    assert ended(ask)["fetch"]["status"] == "failed"
    assert count_jobs(site) == 1
    ask("DELETE", f"/{added['id']}", status=204)
    assert count_jobs(site) == 0


def test_a_download_that_waits_goes_with_its_base_model(ask: Ask, site: Runtime) -> None:
    added = ask("POST", "", {"repo_id": "artist/nothing"}, status=201)
    ask("DELETE", f"/{added['id']}", status=204)
    assert count_jobs(site) == 0


@both_databases
@pytest.mark.usefixtures("fetcher")
def test_a_download_that_runs_goes_with_its_base_model(ask: Ask, hub: FakeHub, site: Runtime, tiny: Path) -> None:
    hub.add("artist/tiny", tiny)
    hub.hold = threading.Event()
    added = ask("POST", "", {"repo_id": "artist/tiny"}, status=201)
    assert hub.held.wait(20)
    ask("DELETE", f"/{added['id']}", status=204)
    hub.hold.set()
    until(lambda: count_jobs(site) == 0)
    assert not fetching_dir(site.settings.models_dir, added["id"]).exists()


@both_databases
def test_a_download_that_is_begun_twice_at_once_runs_once(ask: Ask, site: Runtime, people: People) -> None:
    added = ask("POST", "", {"repo_id": "artist/nothing"}, status=201)
    ask("POST", f"/{added['id']}/cancel", status=200)
    problems: list[BaseException] = []
    barrier = threading.Barrier(4)

    def begin() -> None:
        barrier.wait()
        try:
            with site.open_ctx(people.admin) as ctx:
                base_model_admin.fetch_again(ctx, added["id"])
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert count_jobs(site) == 1
    assert only(ask)["fetch"]["status"] == "queued"


FAILURES = {
    "missing": ("hub_missing", "has no artist/tiny"),
    "gated": ("hub_refused", "without a token"),
    "lying short": ("hub_lied", "longer than"),
    "lying long": ("hub_lied", "ends after"),
    "lying beyond any disk": ("hub_lied", "makes no sense"),
    "endless index": ("hub_lied", "is no JSON"),
    "corrupt": ("hub_lied", "checksum"),
    "no weights": ("bad_repo", "no weights in safetensors"),
    "several": ("bad_repo", "a.safetensors, b.safetensors"),
    "no room": ("not_enough_disk", "have to stay free"),
}


@pytest.mark.usefixtures("fetcher")
@pytest.mark.parametrize("what", list(FAILURES))
def test_what_goes_wrong_is_said(ask: Ask, hub: FakeHub, site: Runtime, tiny: Path, what: str) -> None:
    weights = "vae/diffusion_pytorch_model.safetensors"
    if what != "missing":
        repo = hub.add("artist/tiny", tiny)
        size = len(repo.files[weights])
        if what == "gated":
            repo.is_gated = True
        elif what == "lying short":
            repo.lies[weights] = size - 5000
        elif what == "lying long":
            repo.lies[weights] = size + 5000
        elif what == "lying beyond any disk":
            repo.lies[weights] = 10**400
        elif what == "endless index":
            repo.files["model_index.json"] = b"[" * 100_000
        elif what == "corrupt":
            repo.corrupt.add(weights)
        elif what == "no weights":
            repo.files = {name: data for name, data in repo.files.items() if not name.endswith(".safetensors")}
        elif what == "several":
            repo.files = {"a.safetensors": b"a", "b.safetensors": b"b"}
        elif what == "no room":
            site.settings.hub.reserve_bytes = 2**60
    ask("POST", "", {"repo_id": "artist/tiny"}, status=201)
    failed = ended(ask)
    code, words = FAILURES[what]
    assert failed["fetch"]["status"] == "failed"
    assert failed["fetch"]["error"]["code"] == code
    assert words in failed["fetch"]["error"]["message"]
    assert failed["trouble"] == "It is not downloaded yet."
    assert ask("GET", "")["items"] == []
    ask("DELETE", f"/{failed['id']}", status=204)
    assert ask("GET", "/all")["items"] == []
    assert not fetching_dir(site.settings.models_dir, failed["id"]).exists()


@pytest.mark.usefixtures("fetcher")
def test_a_token_opens_what_is_gated_and_stays_with_the_hub(ask: Ask, hub: FakeHub, site: Runtime, tiny: Path) -> None:
    hub.add("artist/tiny", tiny).is_gated = True
    site.settings.hub.token = SecretStr(hub.token)
    ask("POST", "", {"repo_id": "artist/tiny"}, status=201)
    assert ended(ask)["fetch"]["status"] == "completed"


@pytest.mark.usefixtures("fetcher")
def test_one_checkpoint_of_several(ask: Ask, hub: FakeHub, site: Runtime, tmp_path: Path) -> None:
    import torch

    save_file({"a": torch.zeros(3000)}, tmp_path / "x.safetensors")
    content = (tmp_path / "x.safetensors").read_bytes()
    hub.add("artist/many", **{"sub/one.safetensors": content, "two.safetensors": content})
    assert ask("POST", "", {"repo_id": "artist/many", "file": "sub/one.ckpt"}, status=422)
    added = ask("POST", "", {"repo_id": "artist/many", "file": "sub/one.safetensors"}, status=201)
    assert added["folder"] == "one.safetensors"
    done = ended(ask)
    # It is what the hub has, and still no base model: the reason stands in the list.
    assert done["fetch"]["status"] == "completed"
    assert "none of its names are known" in done["trouble"]
    assert (site.settings.models_dir / "one.safetensors").read_bytes() == content
    ask("DELETE", f"/{added['id']}", status=204)
    assert not (site.settings.models_dir / "one.safetensors").exists()


def test_without_network_it_says_so(site: Runtime) -> None:
    site.settings.hub.endpoint = "http://127.0.0.1:9"
    hub = hub_module.Hub(site.settings.hub)
    with pytest.raises(hub_module.HubUnreachable, match="cannot be reached"):
        hub.read_repo("artist/tiny", None)
    hub.close()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"path": "a", "repo_id": "b/c"},
        {"repo_id": "nobody"},
        {"repo_id": "../../etc"},
        {"repo_id": "a/b", "revision": "../main"},
        {"repo_id": "a/b", "file": "../../x.safetensors"},
        {"repo_id": "a/b", "file": "model.ckpt"},
        {"repo_id": "a/..b"},
    ],
)
def test_names_that_lead_elsewhere_are_refused(ask: Ask, body: dict[str, str]) -> None:
    assert ask("POST", "", body, status=422)["error"]["code"] in ("bad_base_model", "bad_repo")


def test_only_harmless_files_are_wanted() -> None:
    good = ("model_index.json", "unet/config.json", "tokenizer/merges.txt", "a b.safetensors")
    bad = (
        "/etc/x.json",
        "../x.json",
        "a/../../x.json",
        "a\\b.json",
        "c:x.json",
        "x.py",
        "x.bin",
        "",
        "x.json\0.txt",
        "x.ckpt",
    )
    assert all(is_allowed(name) for name in good)
    assert not any(is_allowed(name) for name in bad)


def test_one_set_of_weights_is_chosen() -> None:
    names = [
        "model_index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model-00001-of-00002.safetensors",
        "text_encoder/model-00002-of-00002.safetensors",
        "text_encoder/model.safetensors.index.json",
        "text_encoder/flax_model.json",
        "other/config.json",
    ]
    repo = HubRepo("a/b", "c" * 40, tuple(HubFile(name, 1, None, None) for name in names))
    index = {
        "_class_name": "X",
        "unet": ["d", "U"],
        "vae": ["d", "V"],
        "text_encoder": ["t", "T"],
        "other": [None, None],
    }
    chosen = {file.path for file in choose_folder(repo, index)}
    assert chosen == set(names) - {names[2], names[4], "text_encoder/flax_model.json", "other/config.json"}


def test_a_killed_download_is_gone_on_with(site: Runtime, ask: Ask, hub: FakeHub, tiny: Path, tmp_path: Path) -> None:
    hub.add("artist/tiny", tiny)
    hub.hold = threading.Event()
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from visionsuit.boot import build_runtime\n"
        "from visionsuit.core.config import HubSettings, Settings\n"
        "from visionsuit.schedule import create_fetcher\n"
        "data, models, endpoint = sys.argv[1:]\n"
        "settings = Settings(_env_file=None, data_dir=Path(data), models_dir=Path(models), engine='mock',\n"
        "    hub=HubSettings(endpoint=endpoint, reserve_bytes=0))\n"
        "create_fetcher(build_runtime(settings)).start()\n"
        "time.sleep(600)\n"
    )
    settings: Settings = site.settings
    process = subprocess.Popen([sys.executable, "-c", code, str(settings.data_dir), str(settings.models_dir), hub.url])
    try:
        added = ask("POST", "", {"repo_id": "artist/tiny"}, status=201)
        assert hub.held.wait(60)
        until(lambda: begun(site, added))
        until(lambda: only(ask)["fetch"]["status"] == "running")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(20)
    [part] = fetching_dir(settings.models_dir, added["id"]).rglob("*.part")
    assert part.stat().st_size > 0
    hub.hold.set()
    before = len(hub.requests)
    worker = create_fetcher(site)
    worker.start()
    try:
        assert ended(ask)["fetch"]["status"] == "completed"
    finally:
        worker.stop()
    name = part.name.removesuffix(".part")
    assert any(span for _, path, span in hub.requests[before:] if path.endswith(name))
