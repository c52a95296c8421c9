"""What the index knows of one asset."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from visionsuit.core.text import fold
from visionsuit.search.words import TITLE, facet, facet_of_text, words
from visionsuit.visibility import Asset, visibility_tokens


class Kind(StrEnum):
    """What has an index; the value is the suffix of its table and the kind in tag counts."""

    IMAGE = "image"
    MODEL = "model"
    GALLERY = "gallery"


#: On every row, so that "everything but ..." has something to begin with.
EVERYTHING = facet("a", "")


@dataclass(frozen=True, slots=True)
class Document:
    """One row of the index.

    Attributes:
        asset_id: primary key of the asset; grows with time, so newest first is the index's own order.
        words: everything indexed, space-separated: words of the texts, title words once more under TITLE, filters.
        tags: folded tag -> tag as spelled, of assets that everybody finds; empty for others. These are counted.
    """

    kind: Kind
    asset_id: int
    words: str
    tags: dict[str, str] = field(default_factory=dict)


def make_document(
    kind: Kind,
    asset: Asset,
    texts: Iterable[str] = (),
    *,
    type: str | None = None,
    base_models: Iterable[str | None] = (),
) -> Document:
    """The index row of an asset.

    Args:
        texts: what it is found by besides title, tags and description: prompts, triggers, file names.
        base_models: names and family, each found whole ("SD 1.5", "sd15") and by its words.
    """
    assert asset.id is not None, "an asset is indexed once it has an id"
    title = words(asset.title)
    shown = visibility_tokens(asset)
    filters = [EVERYTHING, *(facet("", token) for token in shown), *(tag_token(tag) for tag in asset.tags)]
    if type:
        filters.append(type_token(type))
    for name in filter(None, base_models):
        filters += [base_token(name), *(base_token(word) for word in words(name) if len(word) > 1)]
    parts = [*title, *dict.fromkeys(filters), *(TITLE + word for word in dict.fromkeys(title))]
    for text in (*asset.tags, asset.description, *texts):
        parts += words(text)
    counted = {fold(tag): tag for tag in asset.tags} if "xpub" in shown else {}
    return Document(kind, asset.id, " ".join(parts), counted)


def tag_token(tag: str) -> str:
    return facet_of_text("t", " ".join(tag.split()))


def type_token(type: str) -> str:
    return facet_of_text("y", type)


def base_token(name: str) -> str:
    """Same for "SD 1.5", "sd1.5" and "SD15"."""
    return facet_of_text("b", "".join(words(name)))


def owner_token(account_id: int) -> str:
    return facet("", f"xu{account_id}")
