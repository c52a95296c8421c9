import json
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from visionsuit.engine.header import BadHeader
from visionsuit.engine.tensor_file import DTYPES, TensorFile, TensorPieces

#: Both readers: the whole file at once, and what is asked for.
Reader = type[TensorFile] | type[TensorPieces]
readers = pytest.mark.parametrize("reader", [TensorFile, TensorPieces])


def write(path: Path, header: object, data: bytes = b"\0" * 64) -> Path:
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


@readers
def test_equals_safetensors_own_reader_in_every_format(tmp_path: Path, reader: Reader) -> None:
    path, generator = tmp_path / "all.safetensors", torch.Generator().manual_seed(1)
    tensors = {name: (torch.randn(3, 5, generator=generator) * 9).to(dtype) for name, dtype in DTYPES.items()}
    tensors |= {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 4)}
    save_file(tensors, path, {"note": "kept"})
    file = reader(path)
    assert file.header["__metadata__"] == {"note": "kept"}
    assert set(file) == set(tensors)
    for name, expected in load_file(path).items():
        assert file[name].dtype == expected.dtype
        assert file[name].shape == expected.shape
        assert torch.equal(file[name].double(), expected.double())


@readers
def test_tensors_may_begin_anywhere(tmp_path: Path, reader: Reader) -> None:
    data = b"\1" + struct.pack("<2f", 1.5, -2.0)
    header = {
        "odd": {"dtype": "F32", "shape": [2], "data_offsets": [1, 9]},
        "byte": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
    }
    file = reader(write(tmp_path / "odd", header, data))
    assert file["odd"].tolist() == [1.5, -2.0]
    assert file["byte"].tolist() == [1]


@readers
@pytest.mark.parametrize(
    "offsets", [[0, 65], [-4, 4], [8, 0], [0, 4], [0, 16], "08", [0], [0.0, 8.0], [False, 8], None, [2**70, 2**70 + 8]]
)
def test_places_outside_of_the_file_are_refused(tmp_path: Path, offsets: object, reader: Reader) -> None:
    file = reader(write(tmp_path / "lies", {"a": {"dtype": "F32", "shape": [2], "data_offsets": offsets}}))
    with pytest.raises(BadHeader, match="outside of the file"):
        file["a"]


@readers
def test_an_unknown_format_is_named(tmp_path: Path, reader: Reader) -> None:
    file = reader(write(tmp_path / "odd", {"a": {"dtype": "Q3", "shape": [2], "data_offsets": [0, 8]}}))
    with pytest.raises(BadHeader, match="Q3"):
        file["a"]


@readers
@given(data=st.binary(max_size=80))
def test_arbitrary_bytes_are_a_bad_header_or_nothing(
    tmp_path_factory: pytest.TempPathFactory, reader: Reader, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("any") / "file"
    path.write_bytes(data)
    try:
        file = reader(path)
    except BadHeader:
        return
    assert not dict(file)


def test_pieces_in_any_order_stay_what_they_were(tmp_path: Path) -> None:
    # Larger than what is read ahead, beside smaller ones, in orders that are not the file's.
    path, generator = tmp_path / "many.safetensors", torch.Generator().manual_seed(2)
    tensors = {f"{n}": torch.randn(1 << n, generator=generator) for n in range(18)}
    save_file(tensors, path)
    with TensorPieces(path) as pieces:
        for order in (sorted(tensors), sorted(tensors, reverse=True), sorted(tensors, key=hash)):
            found = {name: pieces[name] for name in order}
            assert all(torch.equal(found[name], tensors[name]) for name in order)


def test_a_file_cut_off_between_is_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    save_file({"a": torch.ones(4096)}, path)
    with TensorPieces(path) as pieces:
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - 64)
        with pytest.raises(BadHeader, match="cut off"):
            pieces["a"]
