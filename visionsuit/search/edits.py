"""The part of a PATCH that all assets share."""

from collections.abc import Callable
from typing import Any

from visionsuit.core.errors import InvalidInput
from visionsuit.core.permissions import Permission, require
from visionsuit.core.text import clean_description, clean_tags, clean_title
from visionsuit.runtime import Ctx
from visionsuit.visibility import Asset, Visibility, touch

#: Request field -> column and how a value is made fit to keep.
_SHARED: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "title": ("title", clean_title),
    "description": ("description", clean_description),
    "tags": ("tags", clean_tags),
    "visibility": ("visibility", Visibility),
    "adult": ("is_adult", bool),
}


def apply_edits(ctx: Ctx, asset: Asset, edits: dict[str, Any], **more: Any) -> None:
    """Check permission, set what `edits` (request field -> value) and `more` (column -> value) name, write the row.

    Raises:
        NotPermitted: neither owner nor administrator.
        InvalidInput: a text is out of bounds, or a field was sent as null.
    """
    require(ctx.actor, Permission.ASSETS_EDIT, asset)
    changes = dict(more)
    for name, (column, clean) in _SHARED.items():
        if name in edits:
            if edits[name] is None:
                raise InvalidInput(f"The {name} cannot be null.", field=name)
            changes[column] = clean(edits[name])
    if changes:
        touch(asset, **changes)
        ctx.session.add(asset)
        ctx.session.flush()
