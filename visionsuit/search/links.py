"""What lower features show of higher ones: the galleries that hold an asset, the cards with a file of a hash.

Galleries stand above cards, and cards above images, so each hands in its query when it is imported.
"""

from collections.abc import Callable, Iterable

from visionsuit.runtime import Ctx
from visionsuit.search.document import Kind
from visionsuit.search.tiles import CardRef, GalleryRef

_galleries: list[Callable[[Ctx, Kind, int], list[GalleryRef]]] = []
_cards: list[Callable[[Ctx, Iterable[str]], dict[str, CardRef]]] = []


def offers_galleries(find: Callable[[Ctx, Kind, int], list[GalleryRef]]) -> Callable[..., list[GalleryRef]]:
    """Decorator: `find(ctx, kind, asset_id)` names the galleries that the actor sees it in."""
    _galleries.append(find)
    return find


def offers_cards(find: Callable[[Ctx, Iterable[str]], dict[str, CardRef]]) -> Callable[..., dict[str, CardRef]]:
    """Decorator: `find(ctx, hashes)` maps those hashes that a visible card's file has to the card."""
    _cards.append(find)
    return find


def galleries_with(ctx: Ctx, kind: Kind, asset_id: int) -> list[GalleryRef]:
    return [gallery for find in _galleries for gallery in find(ctx, kind, asset_id)]


def cards_by_hash(ctx: Ctx, hashes: Iterable[str]) -> dict[str, CardRef]:
    wanted = list(hashes)
    return {hash_: card for find in _cards for hash_, card in find(ctx, wanted).items()} if wanted else {}
