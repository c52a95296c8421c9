"""A zip that holds exactly one safetensors file, opened without believing it."""

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from visionsuit.media.errors import ArchiveTooLarge, BadArchive, UnsupportedWeights, short_name
from visionsuit.media.safetensors import CONVERT_HINT

MAX_MEMBERS = 200
_MAX_DIRECTORY_BYTES = 1024 * 1024
_CHUNK_BYTES = 1024 * 1024
_END_OF_DIRECTORY = b"PK\x05\x06"
_ENCRYPTED = 0x1
#: What zipfile raises on archives that lie about themselves.
_DAMAGED = (
    zipfile.BadZipFile,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ValueError,
    struct.error,
)


def is_zip(first: bytes) -> bool:
    return first.startswith(b"PK\x03\x04")


def find_weights_member(path: Path, max_bytes: int, name: str = "") -> zipfile.ZipInfo:
    """The one safetensors member of the zip at `path`.

    Raises:
        UnsupportedWeights: the zip is a checkpoint of torch.
        BadArchive: none or several, encrypted, damaged, or with names that try to leave the archive.
        ArchiveTooLarge: the member says it is larger than `max_bytes`.
    """
    label = short_name(name or path.name)
    _check_directory(path, label)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except _DAMAGED as error:
        raise BadArchive(f"{label} is not a zip that can be read: it is damaged or cut off.") from error
    for member in members:
        _check_name(member, label)
    if any(member.filename.lower().endswith(".pkl") for member in members):
        raise UnsupportedWeights(
            f"{label} is a zip-packed checkpoint (.ckpt, .pt, .bin), which may run code when opened; "
            "only safetensors is taken.",
            hint=CONVERT_HINT,
        )
    found = [member for member in members if _is_weights(member)]
    if len(found) != 1:
        what = "no .safetensors file" if not found else f"{len(found)} .safetensors files"
        raise BadArchive(f"{label} holds {what}; a zip must hold exactly one.")
    member = found[0]
    if member.flag_bits & _ENCRYPTED:
        raise BadArchive(f"{label} is encrypted; send it without a password.")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BadArchive(f"{label} is packed with a rare method; pack it with ordinary zip (deflate).")
    if member.file_size > max_bytes:
        raise ArchiveTooLarge(
            f"{label} unpacks to {member.file_size} bytes; the limit for weights is {max_bytes} bytes."
        )
    return member


def read_member(path: Path, member: zipfile.ZipInfo, name: str = "") -> Iterator[bytes]:
    """The member's bytes in chunks; never more than its directory entry promised.

    Raises:
        BadArchive: damaged, or larger than it said.
    """
    label = short_name(name or path.name)
    size = 0
    try:
        with zipfile.ZipFile(path) as archive, archive.open(member) as file:
            while chunk := file.read(_CHUNK_BYTES):
                size += len(chunk)
                if size > member.file_size:
                    raise BadArchive(f"{label} unpacks to more than it says.")
                yield chunk
    except (*_DAMAGED, zlib.error) as error:
        raise BadArchive(f"{label} is damaged: its content does not match its checksum.") from error
    if size != member.file_size:
        raise BadArchive(f"{label} unpacks to less than it says: it is cut off.")


def _check_directory(path: Path, label: str) -> None:
    """Bound the directory before zipfile reads it whole into memory."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 65_557))
        tail = file.read()
    at = tail.rfind(_END_OF_DIRECTORY)
    if at < 0 or len(tail) - at < 22:
        raise BadArchive(f"{label} is not a zip that can be read: it is damaged or cut off.")
    entries, directory_bytes = struct.unpack("<HL", tail[at + 10 : at + 16])
    if entries > MAX_MEMBERS or directory_bytes > _MAX_DIRECTORY_BYTES:
        raise BadArchive(f"{label} holds too many files; the limit is {MAX_MEMBERS}.")


def _check_name(member: zipfile.ZipInfo, label: str) -> None:
    name = member.orig_filename
    parts = name.replace("\\", "/").split("/")
    is_link = stat.S_ISLNK(member.external_attr >> 16)
    if "\0" in name or "\\" in name or name.startswith("/") or ".." in parts or ":" in parts[0] or is_link:
        raise BadArchive(f"{label} holds a file whose name tries to leave the archive ({short_name(name)}).")


def _is_weights(member: zipfile.ZipInfo) -> bool:
    base = os.path.basename(member.filename)
    hidden = base.startswith("._") or member.filename.startswith("__MACOSX/")
    return not member.is_dir() and not hidden and base.lower().endswith(".safetensors")
