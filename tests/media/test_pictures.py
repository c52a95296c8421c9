import io
import struct
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from visionsuit.core.errors import AppError
from visionsuit.media import png
from visionsuit.media.errors import BadPicture, PictureTooLarge, UnsupportedPicture
from visionsuit.media.pictures import read_picture
from visionsuit.media.previews import preview_array


def scene(width: int = 200, height: int = 120) -> Image.Image:
    """A gradient with a red corner at the top left, so that turns can be told apart."""
    x = np.linspace(0, 200, width)[None, :, None]
    y = np.linspace(0, 200, height)[:, None, None]
    pixels = np.broadcast_to((x + y) / 2, (height, width, 3)).astype(np.uint8).copy()
    pixels[: height // 4, : width // 4] = (250, 10, 10)
    return Image.fromarray(pixels)


def as_bytes(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def private_exif(orientation: int = 1, comment: bytes | None = None) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "SecretCam"
    exif[0x013B] = "Jane Doe"
    exif.get_ifd(0x8825)[2] = (52.0, 31.0, 12.0)
    if comment:
        exif.get_ifd(0x8769)[0x9286] = comment
    return exif


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_reads_each_format_and_keeps_its_pixels(kind: str) -> None:
    data = as_bytes(scene(), kind)
    picture = read_picture(data, "scene")
    assert (picture.kind, picture.width, picture.height) == (kind, 200, 120)
    assert picture.mime == f"image/{kind.lower()}"
    assert np.array_equal(np.asarray(opened(picture.data)), np.asarray(opened(data)))
    assert read_picture(picture.data).data == picture.data, "cleaning what is clean changes nothing"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_private_exif_goes_and_the_picture_stays_the_right_way_up(kind: str) -> None:
    data = as_bytes(scene(), kind, exif=private_exif(orientation=6))
    assert b"SecretCam" in data
    picture = read_picture(data)
    assert b"SecretCam" not in picture.data
    assert b"Jane" not in picture.data
    left = Image.open(io.BytesIO(picture.data)).getexif()
    assert dict(left) == {0x0112: 6}
    assert not left.get_ifd(0x8825)
    assert (picture.width, picture.height) == (120, 200)
    small = opened(picture.previews.small.data).convert("RGB")
    assert small.size == (120, 200)
    # Turned a quarter to the right, the red corner is at the top right.
    assert small.getpixel((110, 8))[0] > 200  # type: ignore[index]
    assert small.getpixel((110, 8))[1] < 80  # type: ignore[index]
    assert small.getpixel((8, 8))[0] < 150  # type: ignore[index]
    assert read_picture(picture.data).data == picture.data


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_a_recipe_in_the_user_comment_is_read_and_stays(kind: str) -> None:
    text = "a red fox\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 42, Size: 512x768"
    for code, encoding in ((b"UNICODE\0", "utf-16-be"), (b"UNICODE\0", "utf-16-le"), (b"ASCII\0\0\0", "ascii")):
        exif = private_exif(comment=code + text.encode(encoding))
        picture = read_picture(as_bytes(scene(), kind, exif=exif))
        assert picture.recipe is not None
        assert picture.recipe.prompt == "a red fox"
        assert picture.recipe.seed == 42
        again = read_picture(picture.data)
        assert again.recipe == picture.recipe
        assert b"Jane" not in picture.data


def test_a_user_comment_that_is_no_recipe_goes() -> None:
    exif = private_exif(comment=b"ASCII\0\0\0at grandma's house, Elm Street 5")
    picture = read_picture(as_bytes(scene(), "JPEG", exif=exif))
    assert picture.recipe is None
    assert b"Elm Street" not in picture.data


def test_colour_profile_stays() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for kind in ("PNG", "JPEG", "WEBP"):
        picture = read_picture(as_bytes(scene(), kind, icc_profile=profile))
        assert opened(picture.data).info.get("icc_profile") == profile
        assert opened(picture.previews.large.data).info.get("icc_profile") == profile


def test_private_png_texts_go_and_recipes_stay() -> None:
    info = PngInfo()
    info.add_text("parameters", "a cat\nSteps: 1, Sampler: Euler, Seed: 5, Size: 64x64")
    info.add_text("Author", "Jane Doe")
    info.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta>GPS 52.5</x:xmpmeta>")
    picture = read_picture(as_bytes(scene(), "PNG", pnginfo=info))
    assert list(png.read_texts(picture.data)) == ["parameters"]
    assert picture.recipe is not None
    assert picture.recipe.prompt == "a cat"


def test_markup_in_texts_is_only_text() -> None:
    info = PngInfo()
    evil = "<script>alert(1)</script>"
    info.add_text("parameters", f"{evil}\nSteps: 1, Sampler: {evil}, Seed: 5, Size: 64x64")
    picture = read_picture(as_bytes(scene(), "PNG", pnginfo=info))
    assert picture.recipe is not None
    assert picture.recipe.prompt == evil


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_what_is_glued_behind_a_picture_is_cut_off(kind: str) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("evil.js", "alert(1)")
    clean = read_picture(as_bytes(scene(), kind)).data
    picture = read_picture(as_bytes(scene(), kind) + packed.getvalue() + b"<script>alert(1)</script>")
    assert picture.data == clean
    assert b"<script>" not in picture.data


def test_comments_and_other_segments_of_a_jpeg_go() -> None:
    data = as_bytes(scene(), "JPEG")
    note = b"<?php system($_GET[0]) ?>"
    extra = (
        b"\xff\xfe" + struct.pack(">H", len(note) + 2) + note + b"\xff\xed" + struct.pack(">H", len(note) + 2) + note
    )
    picture = read_picture(data[:2] + extra + data[2:])
    assert b"<?php" not in picture.data
    assert picture.data == read_picture(data).data


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (as_bytes(Image.new("P", (4, 4)), "GIF"), "is a GIF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>", "SVG"),
        (b"\xef\xbb\xbf  <?xml version='1.0'?><svg/>", "SVG"),
        (as_bytes(Image.new("RGB", (4, 4)), "BMP"), "is a BMP"),
        (as_bytes(Image.new("RGB", (4, 4)), "TIFF"), "is a TIFF"),
        (b"PK\x03\x04rest", "zip archive"),
        (b"", "no picture"),
        (b"MZ\x90\0 program", "no picture"),
    ],
)
def test_other_formats_are_refused_by_content_not_by_name(data: bytes, words: str) -> None:
    with pytest.raises(UnsupportedPicture, match=words):
        read_picture(data, "holiday.png")


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animation_is_refused(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), (n * 60, 0, 0)) for n in range(3)]
    data = as_bytes(frames[0], kind, save_all=True, append_images=frames[1:])
    with pytest.raises(UnsupportedPicture, match="animated"):
        read_picture(data, "loop")


def test_pixels_are_bounded_before_any_is_decoded() -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * 1000)
    bomb = (
        png.SIGNATURE
        + png.build_chunk(b"IHDR", header)
        + png.build_chunk(b"IDAT", rows)
        + png.build_chunk(b"IEND", b"")
    )
    with pytest.raises(PictureTooLarge, match="64 megapixels"):
        read_picture(bomb, "bomb.png")
    with pytest.raises(PictureTooLarge, match=r"0.01 megapixels"):
        read_picture(as_bytes(scene(), "PNG"), max_pixels=10_000)


def test_a_bomb_in_a_text_chunk_is_left_out() -> None:
    data = as_bytes(scene(), "PNG")
    packed = zlib.compress(b"a" * 300_000_000, 9)
    bomb = png.build_chunk(b"zTXt", b"parameters\0\0" + packed)
    assert len(bomb) < 400_000
    picture = read_picture(data[:33] + bomb + data[33:])
    assert picture.recipe is None
    assert len(picture.data) <= len(data)


def test_more_jpeg_scans_than_any_tool_writes_are_refused() -> None:
    data = as_bytes(scene(), "JPEG", progressive=True)
    at = data.rindex(b"\xff\xda")
    scan = data[at : data.index(b"\xff\xd9", at)]
    with pytest.raises(BadPicture, match="scans"):
        read_picture(data[:at] + scan * 200 + b"\xff\xd9")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.7, 0.95, 0.999])
def test_cut_off_files_are_refused(kind: str, share: float) -> None:
    data = as_bytes(scene(400, 300), kind)
    with pytest.raises(BadPicture, match=r"cat\.png is a damaged"):
        read_picture(data[: int(len(data) * share)], "cat.png")


def test_damaged_pixels_are_refused() -> None:
    data = bytearray(as_bytes(scene(400, 300), "PNG"))
    at = data.index(b"IDAT") + 60
    data[at : at + 20] = bytes(20)
    with pytest.raises(BadPicture):
        read_picture(bytes(data))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_modes(mode: str) -> None:
    image = (
        Image.fromarray(np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16))
        if mode == "I;16"
        else scene(64, 64).convert(mode)
    )
    picture = read_picture(as_bytes(image, "PNG"))
    small = opened(picture.previews.small.data)
    assert small.size == (64, 64)
    if mode == "I;16":
        assert np.asarray(small.convert("L")).std() > 50, "scaled, not cut off"


def test_cmyk_jpeg() -> None:
    picture = read_picture(as_bytes(scene().convert("CMYK"), "JPEG"))
    red = opened(picture.previews.small.data).convert("RGB").getpixel((5, 5))
    assert red[0] > 180  # type: ignore[index]
    assert red[1] < 90  # type: ignore[index]


@pytest.mark.parametrize(
    ("size", "small", "large"),
    [
        ((100, 50), (100, 50), (100, 50)),
        ((2000, 1000), (320, 160), (1024, 512)),
        ((640, 1280), (160, 320), (512, 1024)),
        ((3000, 2), (320, 1), (1024, 1)),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_previews_fit_and_are_never_upscaled(
    size: tuple[int, int], small: tuple[int, int], large: tuple[int, int], kind: str
) -> None:
    previews = read_picture(as_bytes(scene(*size), kind)).previews
    assert opened(previews.small.data).size == small
    assert opened(previews.large.data).size == large
    assert previews.placeholder.startswith("data:image/webp;base64,")
    assert len(previews.placeholder) <= 400


def test_previews_of_pixels_in_memory_match_those_of_the_file() -> None:
    pixels = np.asarray(scene(640, 480))
    previews = preview_array(pixels)
    assert previews.dhash == read_picture(png.encode_png(pixels)).previews.dhash
    assert len(previews.dhash) == 16


def test_dhash_is_near_for_the_near_and_far_for_the_far() -> None:
    def bits(data: bytes) -> int:
        return int(read_picture(data).previews.dhash, 16)

    noise = Image.fromarray(np.random.default_rng(1).integers(0, 255, (120, 200, 3), dtype=np.uint8))
    one, again, other = (
        bits(as_bytes(scene(), "PNG")),
        bits(as_bytes(scene().resize((150, 90)), "JPEG", quality=60)),
        bits(as_bytes(noise, "PNG")),
    )
    assert (one ^ again).bit_count() <= 6
    assert (one ^ other).bit_count() >= 12


SEEDS = [
    as_bytes(scene(40, 30), "PNG", exif=private_exif(3)),
    as_bytes(scene(40, 30), "JPEG", exif=private_exif(3, b"ASCII\0\0\0hello")),
    as_bytes(scene(40, 30), "JPEG", progressive=True),
    as_bytes(scene(40, 30), "WEBP", exif=private_exif(3), lossless=True),
]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.sampled_from(SEEDS),
    cut=st.floats(0, 1),
    edits=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=6)), max_size=6),
    tail=st.binary(max_size=20),
)
def test_hostile_bytes_are_read_or_refused_in_words(
    seed: bytes, cut: float, edits: list[tuple[float, bytes]], tail: bytes
) -> None:
    data = bytearray(seed[: int(len(seed) * cut)] if cut < 0.7 else seed)
    for where, value in edits:
        at = int(where * len(data))
        data[at : at + len(value)] = value
    data += tail
    try:
        picture = read_picture(bytes(data), "x")
    except AppError as error:
        assert error.message.startswith(("x ", "The file "))  # noqa: PT017
    else:
        assert b"SecretCam" not in picture.data
        assert read_picture(picture.data).data == picture.data
