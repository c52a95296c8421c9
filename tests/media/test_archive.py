import io
import random
import struct
import warnings
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visionsuit.core.errors import AppError
from visionsuit.media.archive import find_weights_member, read_member
from visionsuit.media.errors import ArchiveTooLarge, BadArchive, UnsupportedWeights

GB = 1024**3


def packed(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w", method) as archive:
        warnings.simplefilter("ignore")
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name) if method == 0 else name, data)
    return out.getvalue()


@pytest.fixture
def opened(tmp_path: Path):  # type: ignore[no-untyped-def]
    def write(data: bytes) -> Path:
        path = tmp_path / "upload.zip"
        path.write_bytes(data)
        return path

    return write


def unpack(path: Path, limit: int = GB) -> bytes:
    return b"".join(read_member(path, find_weights_member(path, limit, "mine.zip"), "mine.zip"))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_the_one_file_comes_out(opened, method: int) -> None:  # type: ignore[no-untyped-def]
    data = random.Random(0).randbytes(3_000_000)
    path = opened(packed(("readme.txt", b"hi"), ("folder/My LoRA.SafeTensors", data), method=method))
    assert unpack(path) == data


def test_what_macs_add_does_not_count(opened) -> None:  # type: ignore[no-untyped-def]
    path = opened(packed(("a.safetensors", b"x"), ("__MACOSX/._a.safetensors", b"junk"), ("._b.safetensors", b"junk")))
    assert unpack(path) == b"x"


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([("a.txt", b"")], "no .safetensors file"),
        ([("a.safetensors", b"1"), ("b.safetensors", b"2")], "2 .safetensors files"),
        ([("a.safetensors", b"1"), ("a.safetensors", b"2")], "2 .safetensors files"),
        ([("../a.safetensors", b"1")], "tries to leave"),
        ([("a.safetensors", b"1"), ("x/../../y", b"2")], "tries to leave"),
        ([("/etc/a.safetensors", b"1")], "tries to leave"),
        ([("C:/a.safetensors", b"1")], "tries to leave"),
        ([("a.safetensors", b"1"), ("..\\y", b"2")], "tries to leave"),
        ([("a.safetensors", b"1"), *[(f"{n}.txt", b"") for n in range(300)]], "too many files"),
    ],
)
def test_refusals(opened, members: list[tuple[str, bytes]], words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(BadArchive, match=words) as caught:
        unpack(opened(packed(*members)))
    assert "mine.zip" in caught.value.message


def test_a_torch_checkpoint_is_refused_with_a_way_out(opened) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UnsupportedWeights, match="zip-packed checkpoint") as caught:
        unpack(opened(packed(("archive/data.pkl", b"x"), ("archive/data/0", b"x"))))
    assert "safetensors.torch.save_file" in (caught.value.hint or "")


def test_a_link_is_refused(opened) -> None:  # type: ignore[no-untyped-def]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        link = zipfile.ZipInfo("a.safetensors")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(BadArchive, match="tries to leave"):
        unpack(opened(out.getvalue()))


def test_an_encrypted_one_is_refused(opened) -> None:  # type: ignore[no-untyped-def]
    data = bytearray(packed(("a.safetensors", b"secret"), method=zipfile.ZIP_STORED))
    data[6] |= 1
    at = data.index(b"PK\x01\x02")
    data[at + 8] |= 1
    with pytest.raises(BadArchive, match="encrypted"):
        unpack(opened(bytes(data)))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_rare_methods_are_refused(opened, method: int) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(BadArchive, match="rare method"):
        unpack(opened(packed(("a.safetensors", b"x" * 100), method=method)))


def test_expanded_size_is_bounded(opened) -> None:  # type: ignore[no-untyped-def]
    path = opened(packed(("a.safetensors", bytes(5_000_000))))
    assert path.stat().st_size < 10_000
    with pytest.raises(ArchiveTooLarge, match="unpacks to 5000000 bytes"):
        unpack(path, limit=4_000_000)


def test_one_that_lies_about_its_size_yields_no_more_than_it_said(opened) -> None:  # type: ignore[no-untyped-def]
    data = bytearray(packed(("a.safetensors", bytes(5_000_000))))
    struct.pack_into("<L", data, data.index(b"PK\x01\x02") + 24, 1000)
    path = opened(bytes(data))
    member = find_weights_member(path, 4_000_000)
    size = 0
    with pytest.raises(BadArchive):  # noqa: PT012
        for chunk in read_member(path, member):
            size += len(chunk)
    assert size <= 1000


def test_damaged_content_is_refused(opened) -> None:  # type: ignore[no-untyped-def]
    data = bytearray(packed(("a.safetensors", random.Random(0).randbytes(10_000)), method=zipfile.ZIP_STORED))
    data[5000] ^= 0xFF
    with pytest.raises(BadArchive, match="damaged"):
        unpack(opened(bytes(data)))


SEED = packed(("a.safetensors", b"x" * 200), ("b.txt", b"y"))


@settings(max_examples=300, deadline=None)
@given(edits=st.lists(st.tuples(st.integers(0, len(SEED)), st.binary(max_size=4)), max_size=4), cut=st.integers(0, 100))
def test_hostile_bytes_are_read_or_refused_in_words(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, bytes]], cut: int
) -> None:
    data = bytearray(SEED)
    for at, value in edits:
        data[at : at + len(value)] = value
    path = tmp_path_factory.getbasetemp() / "hostile.zip"
    path.write_bytes(data[: len(data) - cut] if cut < 50 else data)
    try:
        assert len(unpack(path, 1000)) <= 1000
    except AppError as error:
        assert error.code in ("bad_archive", "archive_too_large")  # noqa: PT017
