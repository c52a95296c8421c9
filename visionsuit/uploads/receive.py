"""Bytes of one file -> verified, stored, described. Knows files, not drafts or cards."""

import itertools
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from visionsuit.core.errors import Unavailable
from visionsuit.engine.describe import describe_lora, guess_kind
from visionsuit.media.archive import find_weights_member, is_zip, read_member
from visionsuit.media.errors import short_name
from visionsuit.media.pictures import SUFFIXES, read_picture
from visionsuit.media.previews import Preview
from visionsuit.media.safetensors import check_first_bytes, read_weights_header
from visionsuit.objects.service import StoredFile
from visionsuit.runtime import Runtime
from visionsuit.storage.base import Bucket
from visionsuit.uploads.writing import check_size, collect, in_words, write_stream

Blocks = Iterable[bytes | memoryview]
_WEIGHTS_MIME = "application/octet-stream"


class ReceivedWeights(BaseModel):
    """A verified safetensors file. `facts` and `type` are what its header tells; see engine.describe."""

    role: Literal["weights"] = "weights"
    file: StoredFile
    type: str | None
    family: str
    base_model: str | None
    facts: dict[str, Any]

    @property
    def files(self) -> list[StoredFile]:
        return [self.file]


class ReceivedPicture(BaseModel):
    """A cleaned picture with its thumbnails (one file where the picture is small). Sizes as shown, in pixels."""

    role: Literal["picture"] = "picture"
    picture: StoredFile
    small: StoredFile
    large: StoredFile
    width: int
    height: int
    placeholder: str
    dhash: str
    recipe: dict[str, Any] | None

    @property
    def files(self) -> list[StoredFile]:
        return list({file.object_id: file for file in (self.picture, self.small, self.large)}.values())


Received = Annotated[ReceivedWeights | ReceivedPicture, Field(discriminator="role")]


def receive_weights(runtime: Runtime, blocks: Blocks, object_id: str, name: str) -> ReceivedWeights:
    """Store a safetensors file, or the one in a zip, as `object_id` in bucket `models`; nothing stays of a bad one.

    Raises:
        BadWeights, UnsupportedWeights, BadArchive: with the reason as a sentence.
        FileTooLarge, ArchiveTooLarge: while it arrives.
        StorageUnavailable
    """
    most = runtime.settings.limits.weights_bytes
    first, rest = _peek(blocks, 16)
    if is_zip(first):
        stored = _receive_zip(runtime, rest, object_id, name, most)
    else:
        check_first_bytes(first, name)
        stored = _store_weights(runtime, rest, object_id, name, most)
    try:
        header = read_weights_header(
            lambda offset, size: b"".join(runtime.storage.read(stored.bucket, object_id, offset, offset + size)),
            stored.size_bytes,
            name,
        )
    except BaseException:
        runtime.storage.delete(stored.bucket, object_id)
        raise
    described = describe_lora(header.raw)
    return ReceivedWeights(
        file=stored,
        type=guess_kind(header.raw),
        family=described.family.value,
        base_model=described.base_model,
        facts=described.as_facts(),
    )


def receive_picture(
    runtime: Runtime, blocks: Blocks, bucket: Bucket, object_ids: tuple[str, str, str], name: str
) -> ReceivedPicture:
    """Verify a picture and store it in `bucket`, its thumbnails in `previews`, under ids written down before.

    Args:
        object_ids: of the picture, the small and the large thumbnail.

    Raises:
        BadPicture, PictureTooLarge, UnsupportedPicture, FileTooLarge: with the reason as a sentence.
        StorageUnavailable
    """
    limits = runtime.settings.limits
    data = collect(blocks, most=limits.image_bytes, label=short_name(name))
    read = read_picture(data, name, max_pixels=limits.image_pixels)
    del data
    picture_id, small_id, large_id = object_ids
    previews = read.previews
    stem = Path(name).stem or "picture"
    stored: list[StoredFile] = []

    def put_preview(preview: Preview, object_id: str, named: str) -> StoredFile:
        return _put(runtime, Bucket.PREVIEWS, object_id, preview.data, preview.mime, named + preview.suffix, stored)

    try:
        picture = _put(runtime, bucket, picture_id, read.data, read.mime, _true_name(name, read.kind), stored)
        large = put_preview(previews.large, large_id, f"{stem}-large")
        small = large if previews.small is previews.large else put_preview(previews.small, small_id, f"{stem}-small")
    except BaseException:
        for file in stored:
            runtime.storage.delete(file.bucket, file.object_id)
        raise
    return ReceivedPicture(
        picture=picture,
        small=small,
        large=large,
        width=read.width,
        height=read.height,
        placeholder=previews.placeholder,
        dhash=previews.dhash,
        recipe=read.recipe.model_dump(mode="json") if read.recipe else None,
    )


def _peek(blocks: Blocks, size: int) -> tuple[bytes, Iterator[bytes | memoryview]]:
    """The first `size` bytes (or all), and everything including them."""
    iterator = iter(blocks)
    taken: list[bytes | memoryview] = []
    length = 0
    while length < size:
        block = next(iterator, None)
        if block is None:
            break
        taken.append(block)
        length += len(block)
    return b"".join(taken)[:size], itertools.chain(taken, iterator)


def _store_weights(runtime: Runtime, blocks: Blocks, object_id: str, name: str, most: int) -> StoredFile:
    return write_stream(
        runtime,
        Bucket.MODELS,
        object_id,
        blocks,
        most=most,
        label=short_name(name),
        mime=_WEIGHTS_MIME,
        file_name=name,
    )


def _receive_zip(runtime: Runtime, blocks: Blocks, object_id: str, name: str, most: int) -> StoredFile:
    """A zip's directory stands at its end: it lies on this machine's disk until it has been read."""
    folder = runtime.settings.scratch_dir
    path = folder / f"{secrets.token_hex(8)}.zip"
    size = 0
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                for block in blocks:
                    size += len(block)
                    check_size(size, most, short_name(name))
                    file.write(block)
        except OSError as error:
            raise Unavailable(
                f"{short_name(name)} cannot be unpacked: this server's disk has no room for {in_words(size)}."
            ) from error
        member = find_weights_member(path, most, name)
        first, rest = _peek(read_member(path, member, name), 16)
        inner = Path(member.filename).name
        check_first_bytes(first, inner)
        return _store_weights(runtime, rest, object_id, inner, most)
    finally:
        path.unlink(missing_ok=True)


def _true_name(name: str, kind: str) -> str:
    """`name` with an ending that fits the content, so that a saved file opens."""
    endings = {"JPEG": (".jpg", ".jpeg")}.get(kind, (SUFFIXES[kind],))
    return name if name.lower().endswith(endings) else f"{Path(name).stem or 'picture'}{SUFFIXES[kind]}"


def _put(
    runtime: Runtime, bucket: Bucket, object_id: str, data: bytes, mime: str, name: str, stored: list[StoredFile]
) -> StoredFile:
    file = write_stream(
        runtime, bucket, object_id, [data], most=len(data), label=short_name(name), mime=mime, file_name=name
    )
    stored.append(file)
    return file
