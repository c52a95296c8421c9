"""Objects in S3 or anything that speaks it (MinIO, R2): one S3 bucket a bucket, the object id is the key.

A stream is cut into parts that travel while the next one fills, so memory stays at a few parts whatever the size.
Parts carry a CRC-32 that the server checks, instead of a SHA-256 of the payload in the signature: that one costs
more than sending the bytes.
"""

import base64
import re
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import structlog
from botocore.client import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from visionsuit.core.config import StorageSettings
from visionsuit.storage.base import (
    BASE_MODELS,
    Bucket,
    NamedObject,
    ObjectInfo,
    ObjectMissing,
    StorageForbids,
    StorageUnavailable,
)
from visionsuit.storage.writing import CHUNK_BYTES, check_object_id, write_all

log = structlog.get_logger()

#: S3 allows 5 MiB to 5 GiB a part and 10,000 parts; parts double every 1,000 so that no file is too long.
FIRST_PART_BYTES = 8 * 1024**2
LAST_PART_BYTES = 64 * 1024**2
_PARTS_IN_FLIGHT = 2
_MISSING = {"404", "NoSuchKey", "NoSuchBucket", "NotFound", "NoSuchUpload"}
_CHANGED = {"412", "PreconditionFailed"}
_FORBIDDEN = {"403", "AccessDenied", "Forbidden", "AllAccessDisabled"}
_MD5 = re.compile("[0-9a-f]{32}")
_READ_ATTEMPTS = 4
_STALE = timedelta(hours=24)


class S3Storage:
    def __init__(self, settings: StorageSettings) -> None:
        self._prefix = settings.bucket_prefix
        self._region = settings.region
        self._where = settings.endpoint or f"AWS S3 ({settings.region})"
        config = Config(
            signature_version="s3v4",
            connect_timeout=5,
            read_timeout=60,
            max_pool_connections=32,
            retries={"mode": "standard", "total_max_attempts": 4},
            s3={
                "addressing_style": "path" if settings.path_style else "auto",
                "payload_signing_enabled": False,
            },
            # Newer defaults wrap bodies in aws-chunked trailers, which older MinIO and R2 refuse.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        secret = settings.secret_key.get_secret_value() if settings.secret_key else None
        self._client: Any = boto3.session.Session().client(
            "s3",
            endpoint_url=settings.endpoint,
            region_name=settings.region,
            aws_access_key_id=settings.access_key,
            aws_secret_access_key=secret,
            config=config,
        )
        self._senders = ThreadPoolExecutor(max_workers=8, thread_name_prefix="s3-part")

    def prepare(self) -> None:
        for bucket in Bucket:
            with self._readable_errors():
                self._create_bucket(self._name(bucket))
                self._drop_stale_parts(self._name(bucket))

    def open_writer(self, bucket: Bucket, object_id: str) -> "S3Writer":
        return S3Writer(self, self._name(bucket), check_object_id(object_id))

    def put(self, bucket: Bucket, object_id: str, chunks: Iterable[bytes]) -> int:
        return write_all(self.open_writer(bucket, object_id), chunks)

    def read(self, bucket: Bucket, object_id: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        start = max(0, start)
        if end is not None and end <= start:
            self.size(bucket, object_id)  # an empty range of what is missing is still missing
            return iter(())
        # Asked for here and not in the generator: a missing file is an answer, not a stream that breaks off.
        return self._read(self._name(bucket), check_object_id(object_id), start, end)

    def read_bytes(self, bucket: Bucket, object_id: str) -> bytes:
        return b"".join(self.read(bucket, object_id))

    def size(self, bucket: Bucket, object_id: str) -> int:
        with self._readable_errors():
            head = self._client.head_object(Bucket=self._name(bucket), Key=check_object_id(object_id))
        return int(head["ContentLength"])

    def copy(self, bucket: Bucket, object_id: str, to_bucket: Bucket, to_object_id: str) -> None:
        source = {"Bucket": self._name(bucket), "Key": check_object_id(object_id)}
        with self._readable_errors():
            self._client.copy(source, self._name(to_bucket), check_object_id(to_object_id))

    def delete(self, bucket: Bucket, object_id: str) -> None:
        with self._readable_errors():
            self._client.delete_object(Bucket=self._name(bucket), Key=check_object_id(object_id))

    def abandon(self, bucket: Bucket, object_id: str) -> None:
        self.delete(bucket, object_id)
        name = self._name(bucket)
        with self._readable_errors():
            found = self._client.list_multipart_uploads(Bucket=name, Prefix=object_id)
            for upload in found.get("Uploads", ()):
                self._client.abort_multipart_upload(Bucket=name, Key=upload["Key"], UploadId=upload["UploadId"])

    def list_objects(self, bucket: Bucket) -> Iterator[ObjectInfo]:
        with self._readable_errors():
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self._name(bucket)):
                for entry in page.get("Contents", ()):
                    yield ObjectInfo(entry["Key"], entry["Size"], entry["LastModified"].astimezone(UTC))

    def local_path(self, bucket: Bucket, object_id: str) -> Path | None:
        return None

    def list_named(self) -> Iterator[NamedObject]:
        try:
            with self._readable_errors():
                for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self._base_models):
                    for entry in page.get("Contents", ()):
                        etag = entry["ETag"].strip('"')
                        md5 = etag if _MD5.fullmatch(etag) else None
                        yield NamedObject(entry["Key"], entry["Size"], entry["ETag"], md5)
        except ObjectMissing:
            return

    def read_named(self, key: str, start: int = 0, version: str | None = None) -> Iterator[bytes]:
        return self._read(self._base_models, key, start, None, version)

    def _name(self, bucket: Bucket) -> str:
        return f"{self._prefix}{Bucket(bucket)}"

    @property
    def _base_models(self) -> str:
        return f"{self._prefix}{BASE_MODELS}"

    def _create_bucket(self, name: str) -> None:
        try:
            self._client.head_bucket(Bucket=name)
            return
        except ClientError as error:
            if error.response["Error"]["Code"] not in _MISSING:
                raise
        where = {} if self._region in ("us-east-1", "auto") else {"LocationConstraint": self._region}
        extra = {"CreateBucketConfiguration": where} if where else {}
        # Another process that starts now may have made it in between.
        with suppress(self._client.exceptions.BucketAlreadyOwnedByYou, self._client.exceptions.BucketAlreadyExists):
            self._client.create_bucket(Bucket=name, **extra)

    def _drop_stale_parts(self, name: str) -> None:
        """Parts of uploads whose process died are paid for but seen by nobody."""
        oldest = datetime.now(UTC) - _STALE
        for upload in self._client.list_multipart_uploads(Bucket=name).get("Uploads", ()):
            if upload["Initiated"].astimezone(UTC) < oldest:
                self._client.abort_multipart_upload(Bucket=name, Key=upload["Key"], UploadId=upload["UploadId"])

    def _read(self, name: str, key: str, start: int, end: int | None, etag: str | None = None) -> Iterator[bytes]:
        body, etag = self._get(name, key, start, end, etag)
        if body is None:
            return iter(())
        return self._stream(name, key, start, end, body, etag)

    def _get(self, name: str, key: str, start: int, end: int | None, etag: str | None = None) -> tuple[Any, str]:
        """The open body (None: the range lies past the end) and the ETag of what it belongs to."""
        wanted: dict[str, str] = {}
        if start or end is not None:
            wanted["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        if etag:
            wanted["IfMatch"] = etag
        with self._readable_errors():
            try:
                answer = self._client.get_object(Bucket=name, Key=key, **wanted)
            except ClientError as error:
                if error.response["Error"]["Code"] in ("InvalidRange", "416"):
                    return None, ""
                raise
        return answer["Body"], answer["ETag"]

    def _stream(self, name: str, key: str, start: int, end: int | None, body: Any, etag: str) -> Iterator[bytes]:
        """Chunks; a connection that breaks in the middle is taken up again where it broke."""
        position, failures = start, 0
        while True:
            try:
                try:
                    for chunk in body.iter_chunks(CHUNK_BYTES):
                        position += len(chunk)
                        yield chunk
                    return
                finally:
                    body.close()
            except (BotoCoreError, HTTPClientError, OSError) as error:
                failures += 1
                if failures >= _READ_ATTEMPTS:
                    raise self._unreachable() from error
            body, etag = self._get(name, key, position, end, etag)
            if body is None:
                return

    @contextmanager
    def _readable_errors(self) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            code = error.response["Error"].get("Code", "")
            if code in _MISSING:
                raise ObjectMissing("The file is not in the storage.") from error
            if code in _CHANGED:
                raise ObjectMissing("The file was replaced in the storage.") from error
            if code in _FORBIDDEN:
                log.error("s3_forbids", code=code, operation=error.operation_name)
                raise StorageForbids(
                    f"The object storage forbids a request ({code}); the operator must look at its rights."
                ) from error
            log.error("s3_refused", code=code, operation=error.operation_name)
            raise StorageUnavailable(
                f"The object storage refused a request ({code}); the operator must look at its log."
            ) from error
        except (BotoCoreError, HTTPClientError, OSError) as error:
            raise self._unreachable() from error

    def _unreachable(self) -> StorageUnavailable:
        log.error("s3_unreachable", endpoint=self._where)
        # The address is the operator's business: it goes to the log, not to people.
        return StorageUnavailable("The object storage does not answer; nothing is lost, try again in a minute.")


class S3Writer:
    """One object on its way in; small ones go in a single request at `finish`."""

    def __init__(self, storage: S3Storage, bucket: str, key: str) -> None:
        self._storage = storage
        self._client = storage._client
        self._where = {"Bucket": bucket, "Key": key}
        self._upload_id: str | None = None
        self._buffer = bytearray()
        self._part_bytes = FIRST_PART_BYTES
        self._number = 0
        self._in_flight: deque[Future[dict[str, Any]]] = deque()
        self._parts: list[dict[str, Any]] = []
        self._done = False

    def write(self, chunk: bytes | memoryview) -> None:
        self._buffer += chunk
        while len(self._buffer) >= self._part_bytes:
            with memoryview(self._buffer) as view:
                part = bytes(view[: self._part_bytes])
            del self._buffer[: self._part_bytes]
            self._send(part)

    def finish(self) -> None:
        with self._storage._readable_errors():
            if self._upload_id is None:
                self._client.put_object(**self._where, Body=bytes(self._buffer), **_checksum(self._buffer))
            else:
                if self._buffer:
                    self._send(bytes(self._buffer))
                self._collect(keep=0)
                self._client.complete_multipart_upload(
                    **self._where, UploadId=self._upload_id, MultipartUpload={"Parts": self._parts}
                )
        self._done = True
        self._buffer = bytearray()

    def abort(self) -> None:
        if self._done:
            return
        self._done = True
        self._buffer = bytearray()
        for sent in self._in_flight:
            sent.cancel()
        # A part that arrives after the abort would stay: wait for those on their way.
        for sent in self._in_flight:
            with suppress(Exception):
                sent.result()
        if self._upload_id is not None:
            with self._storage._readable_errors():
                self._client.abort_multipart_upload(**self._where, UploadId=self._upload_id)

    def _send(self, part: bytes) -> None:
        with self._storage._readable_errors():
            if self._upload_id is None:
                started = self._client.create_multipart_upload(**self._where, ChecksumAlgorithm="CRC32")
                self._upload_id = started["UploadId"]
        self._collect(keep=_PARTS_IN_FLIGHT - 1)
        self._number += 1
        self._in_flight.append(self._storage._senders.submit(self._send_part, self._number, part))
        if self._number % 1000 == 0:
            self._part_bytes = min(self._part_bytes * 2, LAST_PART_BYTES)

    def _send_part(self, number: int, part: bytes) -> dict[str, Any]:
        checksum = _checksum(part)
        with self._storage._readable_errors():
            answer = self._client.upload_part(
                **self._where, UploadId=self._upload_id, PartNumber=number, Body=part, **checksum
            )
        return {"PartNumber": number, "ETag": answer["ETag"], **checksum}

    def _collect(self, keep: int) -> None:
        """Wait until at most `keep` parts are on their way."""
        while len(self._in_flight) > keep:
            self._parts.append(self._in_flight.popleft().result())


def _checksum(data: bytes | bytearray) -> dict[str, str]:
    return {"ChecksumCRC32": base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()}
