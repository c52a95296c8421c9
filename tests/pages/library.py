"""A library to look at in the browser: pictures, LoRAs that fit the demo model, galleries."""

import json
from contextlib import closing
from typing import Any

from sqlmodel import select

from tests.assets import new_card, new_gallery
from tests.generation.conftest import lora_bytes
from tests.pages.conftest import Site
from tests.pages.files import png
from visionsuit.accounts.tables import Account
from visionsuit.core.actor import SYSTEM, Actor, Role

#: What a person may write anywhere, and no page may run.
HOSTILE = '"><img src=x onerror="window.hacked=1"><script>window.hacked=1</script>\'`${window.hacked=1}'


def actor_of(site: Site, email: str) -> Actor:
    with site.runtime.open_ctx(SYSTEM, read_only=True) as ctx:
        account = ctx.session.exec(select(Account).where(Account.email == email)).one()
        return Actor(user_id=account.id, role=Role(account.role), name=account.name, public_id=account.public_id)


def add_pictures(site: Site, email: str, titles: list[str], **fields: Any) -> list[dict[str, Any]]:
    """Upload one picture a title, public, oldest first; `parameters` is the recipe in them."""
    parameters = fields.pop("parameters", None)
    items = []
    with closing(site.client(email)) as client:
        for title in titles:
            data = {"title": title, "visibility": "public", **fields}
            body = png(hash((email, title, json.dumps(fields, sort_keys=True))), parameters=parameters)
            answer = client.post(
                "/api/uploads/images", data=data, files={"files": (f"{title[:20]}.png", body, "image/png")}
            )
            answer.raise_for_status()
            items += answer.json()["items"]
    return items


def add_lora(site: Site, email: str, title: str, seed: int, **fields: Any) -> str:
    """Id of a public card whose file fits the demo model."""
    data = {"title": title, "trigger": f"{title.lower()} style", "visibility": "public", **fields}
    files = {
        "file": (f"{seed}.safetensors", lora_bytes(seed=seed), "application/octet-stream"),
        "cover": ("cover.png", png(seed + 7000), "image/png"),
    }
    with closing(site.client(email)) as client:
        answer = client.post("/api/uploads/models", data=data, files=files)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])


def add_cards(site: Site, email: str, count: int, prefix: str, **fields: Any) -> None:
    """Many cards without files, as fast as rows go."""
    with site.runtime.open_ctx(actor_of(site, email)) as ctx:
        for number in range(count):
            new_card(ctx, title=f"{prefix} {number:04}", **fields)


def add_gallery(site: Site, email: str, title: str, **fields: Any) -> str:
    with site.runtime.open_ctx(actor_of(site, email)) as ctx:
        return new_gallery(ctx, title=title, **fields).public_id
