"""Uploads against the real server as a process: memory, kills, broken connections, early refusals."""

import http.client
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.pages.conftest import start_site
from tests.server import Server
from tests.uploads.weights import make_lora, make_picture, stream_weights
from visionsuit.core.actor import Role
from visionsuit.core.config import StorageSettings
from visionsuit.db import open_database, open_session
from visionsuit.storage.base import Bucket, Storage
from visionsuit.storage.folder import FolderStorage
from visionsuit.storage.s3 import S3Storage
from visionsuit.uploads.tables import UploadDraft

MB = 1024 * 1024


@pytest.fixture(scope="module", params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Storage]]:
    """A server and its storage, seen from outside."""
    data = tmp_path_factory.mktemp("process") / "data"
    if request.param == "folder":
        environment: dict[str, str] = {}
        storage: Storage = FolderStorage(data / "storage")
    else:
        settings: StorageSettings = request.getfixturevalue("s3_settings")
        prefix = f"p{secrets.token_hex(4)}-"
        storage = S3Storage(settings.model_copy(update={"bucket_prefix": prefix}))
        assert settings.secret_key is not None
        environment = {
            "VISIONSUIT_STORAGE__KIND": "s3",
            "VISIONSUIT_STORAGE__ENDPOINT": str(settings.endpoint),
            "VISIONSUIT_STORAGE__ACCESS_KEY": str(settings.access_key),
            "VISIONSUIT_STORAGE__SECRET_KEY": settings.secret_key.get_secret_value(),
            "VISIONSUIT_STORAGE__BUCKET_PREFIX": prefix,
        }
    server = Server(data, **environment)
    yield server, storage
    server.stop()


@pytest.fixture
def site(place: tuple[Server, Storage]) -> tuple[Server, Storage]:
    """The same with the server running. The storage may hold what other tests left."""
    server, _ = place
    if not server.is_running:
        server.start()
    return place


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.05)


def in_buckets(storage: Storage) -> list[str]:
    return [info.object_id for bucket in Bucket for info in storage.list_objects(bucket)]


def unfinished(storage: Storage) -> int:
    if isinstance(storage, FolderStorage):
        return len(list((storage.root / ".incoming").iterdir()))
    assert isinstance(storage, S3Storage)
    pages = [storage._client.list_multipart_uploads(Bucket=storage._name(bucket)) for bucket in Bucket]
    return sum(len(page.get("Uploads", ())) for page in pages)


def drafts(server: Server) -> int:
    database = open_database(f"sqlite:///{server.data_dir / 'visionsuit.db'}")
    try:
        with open_session(database, read_only=True) as session:
            return session.query(UploadDraft).count()
    finally:
        database.dispose()


def memory(server: Server) -> int:
    """Resident bytes of the server's own, without the pages of files it has mapped."""
    assert server.process is not None
    info = psutil.Process(server.process.pid).memory_info()
    return int(info.rss - info.shared)


class HighWater:
    """Samples the server's memory while a request runs."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.before = memory(server)
        self.peak = self.before

    def watch(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        for number, block in enumerate(blocks):
            if number % 4 == 0:
                self.peak = max(self.peak, memory(self.server))
            yield block
        self.peak = max(self.peak, memory(self.server))

    @property
    def growth(self) -> int:
        return max(self.peak, memory(self.server)) - self.before


def open_draft(client: httpx.Client) -> list[str]:
    files = [{"name": "big.safetensors", "role": "weights"}, {"name": "cover.png", "role": "cover"}]
    answer = client.post("/api/uploads/drafts", json={"kind": "model", "files": files})
    assert answer.status_code == 201, answer.text
    return [file["upload_url"] for file in answer.json()["files"]]


def test_a_large_file_as_raw_stream_and_as_form_within_64_mb_of_memory(site: tuple[Server, Storage]) -> None:
    server, storage = site
    # Far more than is allowed. The S3 server of the tests is slow; its 100 MB are ten parts.
    length = 150 * MB if isinstance(storage, FolderStorage) else 100 * MB
    with closing(server.admin()) as client:
        client.timeout = httpx.Timeout(200)
        # The first upload loads what only uploads need.
        warm_up = {"files": ("a.png", make_picture(9), "image/png")}
        assert client.post("/api/uploads/images", files=warm_up).status_code == 201
        weights, cover = open_draft(client)
        size, blocks = stream_weights(length)
        water = HighWater(server)
        sent = client.put(weights, content=water.watch(blocks), headers={"Content-Length": str(size)})
        assert sent.status_code == 200, sent.text
        assert sent.json()["size_bytes"] == size
        assert water.growth < 64 * MB
        client.put(cover, content=make_picture(1)).raise_for_status()
        address = weights.rpartition("/files/")[0]
        card = client.post(f"{address}/publish", json={"title": "Big", "trigger": "big"})
        assert card.status_code == 201, card.text

        size, blocks = stream_weights(length, seed=1)
        body = multipart({"title": "Form", "trigger": "form"}, make_picture(2), blocks)
        water = HighWater(server)
        kind = {"Content-Type": "multipart/form-data; boundary=frontier"}
        formed = client.post("/api/uploads/models", content=water.watch(body), headers=kind)
        assert formed.status_code == 201, formed.text
        assert formed.json()["versions"][0]["size_bytes"] == size
        assert water.growth < 64 * MB
        got = 0
        water = HighWater(server)
        with client.stream("GET", formed.json()["versions"][0]["download_url"]) as answer:
            for block in water.watch(answer.iter_bytes(MB)):
                got += len(block)
        assert got == size
        assert water.growth < 64 * MB
    assert unfinished(storage) == 0


def multipart(fields: dict[str, str], cover: bytes, blocks: Iterator[bytes]) -> Iterator[bytes]:
    for name, value in fields.items():
        yield f'--frontier\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
    yield b'--frontier\r\nContent-Disposition: form-data; name="cover"; filename="c.png"\r\n\r\n' + cover + b"\r\n"
    yield b'--frontier\r\nContent-Disposition: form-data; name="file"; filename="big.safetensors"\r\n\r\n'
    yield from blocks
    yield b"\r\n--frontier--\r\n"


def start_form(server: Server, token: str) -> socket.socket:
    """A model upload of which 20 MB are sent and no more."""
    _, blocks = stream_weights(200 * MB)
    body = multipart({"title": "Half", "trigger": "half"}, make_picture(3), blocks)
    connection = socket.create_connection(("127.0.0.1", server.port))
    head = (
        f"POST /api/uploads/models HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAuthorization: Bearer {token}\r\n"
        "Content-Type: multipart/form-data; boundary=frontier\r\nContent-Length: 400000000\r\n\r\n"
    )
    connection.sendall(head.encode())
    sent = 0
    for block in body:
        connection.sendall(block)
        sent += len(block)
        if sent > 20 * MB:
            break
    return connection


def token_of(client: httpx.Client) -> str:
    return client.headers["Authorization"].removeprefix("Bearer ")


def start_draft_file(server: Server, token: str, path: str) -> http.client.HTTPConnection:
    """A draft's weights of which 20 MB are sent and no more."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.putrequest("PUT", path)
    connection.putheader("Authorization", f"Bearer {token}")
    connection.putheader("Content-Length", "400000000")
    connection.endheaders()
    for number, block in enumerate(stream_weights(200 * MB)[1]):
        connection.send(block)
        if number == 20:
            break
    return connection


def test_a_kill_in_the_middle_of_uploads_keeps_the_draft_and_no_bytes(site: tuple[Server, Storage]) -> None:
    server, storage = site
    with closing(server.admin()) as client:
        cards = len(client.get("/api/models").json()["items"])
        weights, cover = open_draft(client)
        client.put(cover, content=make_picture(1)).raise_for_status()
        kept = sorted(in_buckets(storage))
        form = start_form(server, token_of(client))
        wait_for(lambda: unfinished(storage) == 1, "the form's weights")
        wait_for(lambda: len(in_buckets(storage)) == len(kept) + 3, "the form's cover")
        put = start_draft_file(server, token_of(client), weights)
        wait_for(lambda: unfinished(storage) == 2, "the draft's weights")
        assert drafts(server) == 2
    server.kill()
    form.close()
    put.close()
    assert drafts(server) == 2, "what a dead process leaves"
    assert len(in_buckets(storage)) == len(kept) + 3
    server.start()
    assert sorted(in_buckets(storage)) == kept
    assert unfinished(storage) == 0
    assert drafts(server) == 1
    assert list((server.data_dir / "uploads").iterdir()) == []
    with closing(server.admin()) as client:
        assert len(client.get("/api/models").json()["items"]) == cards
        client.put(weights, content=make_lora()).raise_for_status()
        address = weights.rpartition("/files/")[0]
        card = client.post(f"{address}/publish", json={"title": "After all", "trigger": "x"})
        assert card.status_code == 201, card.text


@pytest.mark.parametrize("place", ["s3"], indirect=True)
def test_a_broken_connection_leaves_nothing(site: tuple[Server, Storage]) -> None:
    server, storage = site
    with closing(server.admin()) as client:
        kept, open_drafts = sorted(in_buckets(storage)), drafts(server)
        connection = start_form(server, token_of(client))
        wait_for(lambda: unfinished(storage) > 0, "the upload's beginning")
        connection.close()
        wait_for(lambda: drafts(server) == open_drafts, "the clean-up")
        assert sorted(in_buckets(storage)) == kept
        assert unfinished(storage) == 0
        assert client.get("/health").status_code == 200


def test_refusals_reach_a_sender_who_is_still_sending(tmp_path: Path) -> None:
    limits = {"weights_bytes": 5 * MB, "image_bytes": MB}
    with (
        contextmanager(start_site)(tmp_path / "data", limits=limits) as site,
        site.client(site.person(Role.CURATOR)) as client,
    ):
        weights, _ = open_draft(client)
        size, blocks = stream_weights(30 * MB)
        announced = client.put(weights, content=blocks, headers={"Content-Length": str(size)})
        assert (announced.status_code, announced.json()["error"]["code"]) == (413, "file_too_large")
        _, blocks = stream_weights(30 * MB)
        chunked = client.put(weights, content=blocks)
        assert (chunked.status_code, chunked.json()["error"]["code"]) == (413, "file_too_large")
        assert "5 MB" in chunked.json()["error"]["message"]
        picture = {"files": ("big.png", make_picture() + os.urandom(3 * MB), "image/png")}
        refused = client.post("/api/uploads/images", files=picture)
        assert (refused.status_code, refused.json()["error"]["code"]) == (413, "file_too_large")
        guest = httpx.post(f"{site.url}/api/uploads/images", files=picture)
        assert (guest.status_code, guest.json()["error"]["code"]) == (401, "not_signed_in")
        assert in_buckets(FolderStorage(tmp_path / "data" / "storage")) == []
