"""Why a file is refused: each names the file as its sender called it, the reason, and the limit."""

from visionsuit.core.errors import InvalidInput, TooLarge, UnsupportedType


class BadWeights(InvalidInput):
    code = "bad_safetensors"


class UnsupportedWeights(UnsupportedType):
    code = "unsupported_weights"


class BadArchive(InvalidInput):
    code = "bad_archive"


class ArchiveTooLarge(TooLarge):
    code = "archive_too_large"


class BadPicture(InvalidInput):
    code = "bad_image"


class PictureTooLarge(TooLarge):
    code = "image_too_large"


class UnsupportedPicture(UnsupportedType):
    code = "unsupported_image"


def short_name(name: str) -> str:
    """A file's name for a sentence: one line, at most 80 characters."""
    plain = "".join(character if character.isprintable() else " " for character in name).strip() or "The file"
    return plain if len(plain) <= 80 else f"{plain[:60]}...{plain[-17:]}"
