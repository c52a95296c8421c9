import io
import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from visionsuit.media.errors import BadWeights, UnsupportedWeights
from visionsuit.media.safetensors import read_weights_file, read_weights_header

ONE = {"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}


def build(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def read(data: bytes, name: str = "lora.safetensors"):  # type: ignore[no-untyped-def]
    return read_weights_header(lambda offset, size: data[offset : offset + size], len(data), name)


def test_an_honest_file(tmp_path: Path) -> None:
    data = save(
        {"up": np.zeros((4, 8), np.float16), "down": np.ones((8,), np.float32), "none": np.zeros((0, 4), np.int64)},
        metadata={"ss_network_dim": "8"},
    )
    header = read(data)
    assert header.metadata == {"ss_network_dim": "8"}
    assert header.tensors["up"]["shape"] == [4, 8]
    assert header.tensors["up"]["dtype"] == "F16"
    assert header.raw.keys() == {"__metadata__", "up", "down", "none"}
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    assert read_weights_file(path) == header


def test_reads_the_header_alone() -> None:
    data = save({"a": np.zeros((1000, 1000), np.float32)})
    asked: list[int] = []

    def reader(offset: int, size: int) -> bytes:
        asked.append(offset + size)
        return data[offset : offset + size]

    header = read_weights_header(reader, len(data))
    assert max(asked) <= 8 + header.header_bytes


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "too short"),
        (b"\x02\0\0", "too short"),
        (b"not a weights file at all, just text", "does not begin with the length"),
        (struct.pack("<Q", 2**63) + b"{}" + bytes(64), "does not begin with the length"),
        (struct.pack("<Q", 100_000_001) + b"{}" + bytes(64), "does not begin with the length"),
        (build(ONE, bytes(16), length=5000), "cut off"),
        (build(b"[1, 2]  "), "no JSON header"),
        (build(b'{"a": '), "not valid JSON"),
        (build(b"{" + b'"a":[' * 200_000), "not valid JSON"),
        (build(b'{"a": NaN}'), "not valid JSON"),
        (build(b'{"\xff": 1}'), "not valid JSON"),
        (build({}), "holds no tensors"),
        (build({"__metadata__": {"a": "b"}}), "holds no tensors"),
        (build({**ONE, "__metadata__": {"a": 1}}, bytes(16)), "not an object of texts"),
        (build({**ONE, "__metadata__": ["a"]}, bytes(16)), "not an object of texts"),
        (
            build(
                b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
                bytes(4),
            ),
            "names a twice",
        ),
        (build(b'{"a":{"dtype":"F32","dtype":"I8","shape":[1],"data_offsets":[0,4]}}', bytes(4)), "names dtype twice"),
        (build(ONE, bytes(15)), "cut off"),
        (build(ONE, bytes(17)), "after the last tensor"),
        (build({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, bytes(8)), "before tensor a"),
        (
            build(
                {
                    "a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]},
                    "b": {"dtype": "U8", "shape": [4], "data_offsets": [2, 6]},
                },
                bytes(6),
            ),
            "overlaps",
        ),
        (
            build(
                {
                    "a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]},
                    "b": {"dtype": "U8", "shape": [4], "data_offsets": [6, 10]},
                },
                bytes(10),
            ),
            "belong to nothing",
        ),
        (build({"a": {"dtype": "F33", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)), "unknown dtype F33"),
        (build({"a": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}}, bytes(4)), "unknown dtype"),
        (build({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, bytes(4)), "does not fit"),
        (build({"a": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}}, bytes(4)), "shape"),
        (build({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, bytes(4)), "shape"),
        (build({"a": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 0]}}), "shape"),
        (build({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, bytes(4)), "offsets"),
        (build({"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}, bytes(4)), "offsets"),
        (build({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}, bytes(4)), "offsets"),
        (build({"a": {"dtype": "F32", "shape": [1]}}, bytes(4)), "lacks"),
        (build({"a": 7}, bytes(4)), "lacks"),
    ],
)
def test_lies_are_named(data: bytes, words: str) -> None:
    with pytest.raises(BadWeights, match=words) as caught:
        read(data)
    assert "lora.safetensors" in caught.value.message


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_are_refused_with_a_way_out(protocol: int) -> None:
    with pytest.raises(UnsupportedWeights, match="pickle") as caught:
        read(pickle.dumps({"state_dict": [1.0] * 50}, protocol=protocol), "model.ckpt")
    assert "safetensors.torch.save_file" in (caught.value.hint or "")


def test_torch_zip_checkpoints_are_refused_with_a_way_out() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}")
    with pytest.raises(UnsupportedWeights, match="zip-packed checkpoint"):
        read(out.getvalue(), "model.pt")


def test_a_long_name_does_not_make_a_long_message() -> None:
    with pytest.raises(BadWeights) as caught:
        read(b"x" * 100, "n" * 300 + "\n\x1b[31m.safetensors")
    assert len(caught.value.message) < 250
    assert "\x1b" not in caught.value.message


SEED = save({"a": np.zeros((2, 3), np.float32), "b": np.zeros(5, np.uint8)}, metadata={"k": "v"})


@settings(max_examples=400, deadline=None)
@given(edits=st.lists(st.tuples(st.integers(0, len(SEED)), st.binary(max_size=4)), max_size=4), cut=st.integers(0, 300))
def test_whatever_is_accepted_the_reference_reader_accepts_too(edits: list[tuple[int, bytes]], cut: int) -> None:
    data = bytearray(SEED)
    for at, value in edits:
        data[at : at + len(value)] = value
    hostile = bytes(data[: len(data) - cut] if cut < 40 else data)
    try:
        read(hostile)
    except (BadWeights, UnsupportedWeights):
        return
    try:
        deserialize(hostile)
    except SafetensorError as error:
        raise AssertionError(f"accepted what safetensors refuses: {error}") from error
