import io
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from visionsuit.media import png


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("shape", [(1, 1), (7, 13), (64, 64)])
def test_round_trip_through_pillow(shape: tuple[int, int], channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, channels), dtype=np.uint8)
    texts = {"parameters": "a cat\nSteps: 3", "visionsuit": '{"a":"日本 🐈"}'}
    image = Image.open(io.BytesIO(png.encode_png(pixels, texts)))
    assert image.info["parameters"] == texts["parameters"]
    assert image.info["visionsuit"] == texts["visionsuit"]
    assert np.array_equal(np.asarray(image), pixels)


def test_a_slice_that_is_not_contiguous() -> None:
    pixels = np.arange(20 * 20 * 3, dtype=np.uint8).reshape(20, 20, 3)[::2, ::2]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png.encode_png(pixels)))), pixels)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(["parameters", "visionsuit", "Comment"]), st.text(st.characters(codec="utf-8"))))
def test_texts_come_back(texts: dict[str, str]) -> None:
    pixels = np.zeros((2, 2, 3), np.uint8)
    expected = {key: text.replace("\0", "") for key, text in texts.items()}
    assert png.read_texts(png.encode_png(pixels, texts)) == expected


def test_packed_texts() -> None:
    plain = png.encode_png(np.zeros((2, 2, 3), np.uint8))
    chunks = png.build_chunk(b"zTXt", b"prompt\0\0" + zlib.compress(b"{}"))
    chunks += png.build_chunk(b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress("ü".encode()))
    assert png.read_texts(plain[:33] + chunks + plain[33:]) == {"prompt": "{}", "workflow": "ü"}
    assert png.read_texts(plain[:-12] + chunks + plain[-12:]) == {"prompt": "{}", "workflow": "ü"}, "behind the pixels"


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (b"zTXt", b"prompt\0\0not deflate"),
        (b"zTXt", b"prompt\0\1" + zlib.compress(b"{}")),
        (b"zTXt", b"prompt\0\0" + zlib.compress(b"a" * 2_000_000)),
        (b"iTXt", b"prompt\0\1\0\0\0" + zlib.compress(b"a" * 2_000_000)),
        (b"iTXt", b"prompt\0\1\0"),
        (b"iTXt", b"prompt"),
        (b"tEXt", b"\0nameless"),
        (b"tEXt", b"k" * 200 + b"\0long name"),
        (b"tEXt", b"parameters\0" + b"a" * 2_000_000),
    ],
)
def test_malformed_and_oversized_texts_are_left_out(kind: bytes, data: bytes) -> None:
    plain = png.encode_png(np.zeros((2, 2, 3), np.uint8))
    assert png.read_texts(plain[:33] + png.build_chunk(kind, data) + plain[33:]) == {}


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_damaged(data: bytes) -> None:
    for start in (b"", png.SIGNATURE):
        try:
            png.read_texts(start + data)
        except png.PngDamaged:
            pass
