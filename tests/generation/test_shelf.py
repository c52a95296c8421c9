"""Base models that lie in the storage: listed, downloaded when they are wanted, whole whatever happens on the way."""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest

from tests.engine.tiny import make_tiny_sd
from tests.generation.conftest import run_commands
from tests.generation.test_base_model_fetch import Ask, ask, ended, fetcher, hub, only  # noqa: F401  (fixtures)
from tests.jobs.conftest import until
from visionsuit.core.config import HubSettings, StorageSettings
from visionsuit.engine.catalog import read_base_model
from visionsuit.generation.base_model_fetch import fetching_dir
from visionsuit.generation.hub import FetchStopped, HubLied
from visionsuit.generation.shelf import BadManifest, Shelf
from visionsuit.generation.shelf_sync import sync_shelf
from visionsuit.runtime import Runtime
from visionsuit.storage.base import BASE_MODELS, ObjectMissing
from visionsuit.storage.folder import FolderStorage
from visionsuit.storage.s3 import S3Storage

Put = Callable[[str, bytes], None]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_sd(tmp_path_factory.mktemp("tiny") / "sd")


@pytest.fixture(params=["folder", "s3"])
def site(request: pytest.FixtureRequest, runtime: Runtime, tmp_path: Path) -> Runtime:
    settings = runtime.settings.model_copy(
        update={"models_dir": tmp_path / "models", "hub": HubSettings(reserve_bytes=0)}
    )
    settings.models_dir.mkdir()
    site = replace(runtime, settings=settings)
    if request.param == "folder":
        return site
    far: StorageSettings = request.getfixturevalue("s3_settings")
    storage = S3Storage(far.model_copy(update={"bucket_prefix": f"b{secrets.token_hex(4)}-"}))
    return replace(site, storage=storage)


@pytest.fixture
def put(site: Runtime) -> Put:
    """What the operator does, beside the app: `put(key, data)`."""
    storage = site.storage
    if isinstance(storage, FolderStorage):
        top = storage.root / BASE_MODELS

        def write(key: str, data: bytes) -> None:
            (top / key).parent.mkdir(parents=True, exist_ok=True)
            (top / key).write_bytes(data)

        return write
    assert isinstance(storage, S3Storage)
    client, name = storage._client, storage._base_models
    return lambda key, data: (client.create_bucket(Bucket=name), client.put_object(Bucket=name, Key=key, Body=data))[0]


def put_folder(put: Put, name: str, folder: Path) -> dict[str, bytes]:
    files = {f"{name}/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in _files(folder)}
    for key, data in files.items():
        put(key, data)
    return files


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def manifest(files: dict[str, bytes], **wrong: Any) -> bytes:
    entries = [
        {"path": key, "size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), **wrong}
        for key, data in files.items()
    ]
    return json.dumps({"files": entries}).encode()


def test_no_bucket_is_an_empty_one(site: Runtime) -> None:
    assert Shelf(site.storage).read_all() == {}
    sync_shelf(site)


@pytest.mark.usefixtures("fetcher")
def test_a_folder_is_listed_and_fetched_when_wanted(ask: Ask, site: Runtime, put: Put, tiny: Path) -> None:  # noqa: F811
    put_folder(put, "Tiny", tiny)
    put("Tiny/run.py", b"import os")
    put("notes.txt", b"buy milk")
    put("half/unet/config.json", b"{}")
    [listed] = ask("POST", "/sync")["items"]
    assert (listed["origin"], listed["repo_id"], listed["label"]) == ("storage", "Tiny", "Tiny")
    assert (listed["trouble"], listed["fetch"], listed["on_disk"]) == ("It is not downloaded yet.", None, False)
    assert ask("GET", "")["items"] == [], "not offered yet"
    assert [item["id"] for item in ask("POST", "/sync")["items"]] == [listed["id"]], "a second look adds nothing"
    ask("POST", f"/{listed['id']}/fetch", status=200)
    done = ended(ask)
    assert done["fetch"]["status"] == "completed", done
    folder = site.settings.models_dir / "Tiny"
    assert {path.relative_to(folder) for path in _files(folder)} == {path.relative_to(tiny) for path in _files(tiny)}
    assert read_base_model(folder).weights_bytes == read_base_model(tiny).weights_bytes
    assert [item["id"] for item in ask("GET", "")["items"]] == [listed["id"]]
    assert not any((site.settings.models_dir / ".fetching").iterdir())
    assert ask("POST", "/sync")["items"][0]["origin"] == "storage"
    assert ask("DELETE", f"/{listed['id']}") is None
    assert not folder.exists()


@pytest.mark.usefixtures("fetcher")
def test_one_checkpoint(ask: Ask, site: Runtime, put: Put) -> None:  # noqa: F811
    data = secrets.token_bytes(3_000_000)
    put("whole.safetensors", data)
    [listed] = ask("POST", "/sync")["items"]
    assert (listed["label"], listed["file"]) == ("whole", "whole.safetensors")
    ask("POST", f"/{listed['id']}/fetch")
    done = ended(ask)
    assert done["fetch"]["status"] == "completed"
    assert (site.settings.models_dir / "whole.safetensors").read_bytes() == data
    assert done["trouble"], "random bytes are no checkpoint, and the list says so"


def test_what_is_there_already_is_left_alone(ask: Ask, site: Runtime, put: Put, tiny: Path) -> None:  # noqa: F811
    put_folder(put, "Tiny", tiny)
    shutil.copytree(tiny, site.settings.models_dir / "Tiny")
    assert [item["origin"] for item in ask("POST", "/sync")["items"]] == ["found"]


def test_what_somebody_else_put_under_its_name_is_not_deleted(ask: Ask, site: Runtime, put: Put, tiny: Path) -> None:  # noqa: F811
    put_folder(put, "Tiny", tiny)
    [listed] = ask("POST", "/sync")["items"]
    shutil.copytree(tiny, site.settings.models_dir / "Tiny")
    ask("DELETE", f"/{listed['id']}", status=204)
    assert (site.settings.models_dir / "Tiny" / "model_index.json").is_file()


def test_what_left_the_storage_says_so(ask: Ask, site: Runtime, put: Put, tiny: Path) -> None:  # noqa: F811
    put_folder(put, "Tiny", tiny)
    put("manifest.json", manifest({"other.safetensors": b"x"}))
    names = {item["repo_id"] for item in ask("POST", "/sync")["items"]}
    assert names == {"other.safetensors"}, "what the manifest does not name is not there"
    put("manifest.json", manifest({}))
    ask("POST", "/sync")
    assert "no longer in the storage" in only(ask)["trouble"]


def read(site: Runtime, target: Path, stop_after: int | None = None) -> list[int]:
    """Fetch the only file there; bytes that were told."""
    shelf = Shelf(site.storage)
    [repo] = shelf.read_all().values()
    told: list[int] = []
    shelf.fetch(
        repo,
        repo.files[0],
        target,
        on_bytes=told.append,
        is_stopped=lambda: stop_after is not None and bool(told) and told[-1] >= stop_after,
    )
    return told


def test_a_stopped_download_goes_on_where_it_was(site: Runtime, put: Put, tmp_path: Path) -> None:
    data = secrets.token_bytes(5_000_000)
    put("whole.safetensors", data)
    target = tmp_path / "got" / "whole.safetensors"
    with pytest.raises(FetchStopped):
        read(site, target, stop_after=1_000_000)
    part = target.with_name("whole.safetensors.part")
    have = part.stat().st_size
    assert 1_000_000 <= have < len(data)
    told = read(site, target)
    assert told[0] > have
    assert target.read_bytes() == data
    assert not part.exists()
    assert read(site, target) == [len(data)], "what is there is not fetched again"


def test_what_was_replaced_is_not_mixed(site: Runtime, put: Put, tmp_path: Path) -> None:
    put("whole.safetensors", b"a" * 2_000_000)
    shelf = Shelf(site.storage)
    [repo] = shelf.read_all().values()
    put("whole.safetensors", b"b" * 2_000_000)
    with pytest.raises(ObjectMissing, match="replaced"):
        shelf.fetch(repo, repo.files[0], tmp_path / "w", on_bytes=lambda _: None, is_stopped=lambda: False)
    [changed] = shelf.read_all().values()
    assert changed.snapshot != repo.snapshot, "a download of the old one does not go on with the new one"


def test_checksums(site: Runtime, put: Put, tmp_path: Path) -> None:
    data = secrets.token_bytes(100_000)
    put("whole.safetensors", data)
    put("manifest.json", manifest({"whole.safetensors": data}))
    read(site, tmp_path / "good")
    assert (tmp_path / "good").read_bytes() == data
    put("whole.safetensors", data[:-1] + b"?")
    with pytest.raises(HubLied, match="checksum"):
        read(site, tmp_path / "bad")
    put("manifest.json", manifest({"whole.safetensors": data}, size_bytes=5))
    with pytest.raises(HubLied, match="bytes"):
        read(site, tmp_path / "long")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["good"]


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b'{"files": 3}', b'{"files": [{"path": "a.safetensors"}]}', b"[" * 100_000]
    + [manifest({"a.safetensors": b""}, **wrong) for wrong in ({"size_bytes": -1}, {"sha256": "x"}, {"path": 3})],
)
def test_a_manifest_that_makes_no_sense(site: Runtime, put: Put, content: bytes) -> None:
    put("manifest.json", content)
    with pytest.raises(BadManifest, match="makes no sense"):
        Shelf(site.storage).read_all()


@pytest.mark.parametrize(
    "key", ["../x.safetensors", "/etc/x.safetensors", "a/../../x/model_index.json", ".hidden.safetensors"]
)
def test_names_that_lead_elsewhere_are_left_out(site: Runtime, put: Put, key: str) -> None:
    put("manifest.json", manifest({key: b"x"}))
    assert Shelf(site.storage).read_all() == {}


@pytest.mark.usefixtures("fetcher")
def test_a_cancelled_download_keeps_what_came(ask: Ask, site: Runtime, put: Put) -> None:  # noqa: F811
    put("whole.safetensors", secrets.token_bytes(1_000_000))
    [listed] = ask("POST", "/sync")["items"]
    ask("POST", f"/{listed['id']}/fetch")
    ask("POST", f"/{listed['id']}/cancel")
    until(lambda: only(ask)["fetch"]["status"] in ("cancelled", "completed"))
    ask("DELETE", f"/{listed['id']}")
    until(lambda: not fetching_dir(site.settings.models_dir, listed["id"]).exists())


@pytest.mark.parametrize("site", ["folder"], indirect=True)
def test_from_the_command_line(site: Runtime, put: Put, tmp_path: Path) -> None:
    put("whole.safetensors", b"x")
    environment = {
        **os.environ,
        "VISIONSUIT_DATA_DIR": str(tmp_path / "fresh"),
        "VISIONSUIT_STORAGE__FOLDER": str(site.settings.storage_folder),
        "VISIONSUIT_MODELS_DIR": str(site.settings.models_dir),
        "VISIONSUIT_ENGINE": "mock",
        "COLUMNS": "200",
    }
    synced, fetched, missing = run_commands(environment, "models sync", "models fetch whole", "models fetch nothing")
    assert synced[0] == 0, synced
    assert "not downloaded" in synced[1]
    assert "as soon as the app runs" in fetched[1]
    assert missing[0] == 1


@pytest.fixture
def no_listing(s3_settings: StorageSettings) -> Iterator[StorageSettings]:
    """The S3 server behind one that forbids to list, and so also to say that something is not there."""

    class Guard(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = (
                None
                if "list-type" in self.path
                else httpx.get(f"{s3_settings.endpoint}{self.path}", headers=self._headers())
            )
            if answer is None or answer.status_code == 404:
                self._answer(403, b"<Error><Code>AccessDenied</Code></Error>", {})
            else:
                self._answer(answer.status_code, answer.content, dict(answer.headers))

        def _headers(self) -> dict[str, str]:
            return {
                name: value
                for name, value in self.headers.items()
                if name.lower() in ("range", "if-match", "authorization")
            }

        def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name in ("etag", "content-range", "last-modified", "content-type"):
                if name in headers:
                    self.send_header(name, headers[name])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Guard)
    Thread(target=server.serve_forever, daemon=True).start()
    yield s3_settings.model_copy(update={"endpoint": f"http://127.0.0.1:{server.server_address[1]}"})
    server.shutdown()
    server.server_close()


def test_where_listing_is_forbidden_the_manifest_tells(
    s3_settings: StorageSettings, no_listing: StorageSettings, tmp_path: Path
) -> None:
    prefix = {"bucket_prefix": f"n{secrets.token_hex(4)}-"}
    operator = S3Storage(s3_settings.model_copy(update=prefix))._client
    shelf = Shelf(S3Storage(no_listing.model_copy(update=prefix)))
    bucket, data = f"{prefix['bucket_prefix']}{BASE_MODELS}", secrets.token_bytes(50_000)
    operator.create_bucket(Bucket=bucket)
    operator.put_object(Bucket=bucket, Key="whole.safetensors", Body=data)
    assert shelf.read_all() == {}
    operator.put_object(Bucket=bucket, Key="manifest.json", Body=manifest({"whole.safetensors": data}))
    [repo] = shelf.read_all().values()
    shelf.fetch(repo, repo.files[0], tmp_path / "got", on_bytes=lambda _: None, is_stopped=lambda: False)
    assert (tmp_path / "got").read_bytes() == data
