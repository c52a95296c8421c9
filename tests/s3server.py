"""A real S3 server on a free port of this machine, for the driver's tests over real HTTP."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer
from pydantic import SecretStr

from visionsuit.core.config import StorageKind, StorageSettings


@contextmanager
def serve_s3() -> Iterator[StorageSettings]:
    """Settings that reach the server; it ends with the block."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield StorageSettings(
            kind=StorageKind.S3,
            endpoint=f"http://{host}:{port}",
            access_key="tests",
            secret_key=SecretStr("tests-secret"),
        )
    finally:
        server.stop()


def empty_buckets(prefix: str) -> None:
    """Take everything out of the buckets that begin with `prefix`, unfinished uploads too. The server runs in this
    process: a look into it takes no time, where asking each bucket over HTTP takes longer than many a test."""
    for name, bucket in s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets.items():
        if name.startswith(prefix):
            bucket.keys.clear()
            bucket.multiparts.clear()


def closed_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
