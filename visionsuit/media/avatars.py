"""Any accepted picture -> the small square that stands for a person."""

import io

from PIL import Image

from visionsuit.media.pictures import DEFAULT_MAX_PIXELS, read_picture
from visionsuit.media.previews import encode_webp

AVATAR_PIXELS = 256


def make_avatar(data: bytes, name: str = "", *, max_pixels: int = DEFAULT_MAX_PIXELS) -> bytes:
    """WebP of the picture's middle square, at most AVATAR_PIXELS a side, without any of its metadata.

    Raises:
        UnsupportedPicture: not PNG, JPEG or WebP, or animated.
        PictureTooLarge: more than `max_pixels` decoded.
        BadPicture: damaged or cut off.
    """
    preview = read_picture(data, name, max_pixels=max_pixels).previews.large.data
    with Image.open(io.BytesIO(preview), formats=("WEBP", "JPEG")) as image:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        target = min(side, AVATAR_PIXELS)
        square = image.resize((target, target), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))
        return encode_webp(square, image.info.get("icc_profile"))
