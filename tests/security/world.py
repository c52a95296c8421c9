"""A site with one of everything, all of it private and owned by `owner`, and everybody who might want it."""

from dataclasses import dataclass, field
from itertools import count

from starlette.testclient import TestClient

from tests.assets import new_card, new_gallery, new_image, picture_file
from tests.conftest import People
from visionsuit.accounts.sessions import issue_token
from visionsuit.accounts.tables import Account
from visionsuit.core.actor import Actor, Role
from visionsuit.galleries.service import add_items
from visionsuit.generation import service as generation
from visionsuit.generation.base_models import list_offered, sync_base_models
from visionsuit.generation.order import Order
from visionsuit.objects.service import Subject, store
from visionsuit.runtime import Runtime
from visionsuit.storage.base import Bucket
from visionsuit.visibility import Visibility

#: From the stranger to the one who may most.
IDENTITIES = ("guest", "user", "other", "owner", "admin", "superadmin")
PRIVATE = {"visibility": Visibility.PRIVATE}
_names = count()


@dataclass
class World:
    """`ids` fill the path templates of the matrix; `tokens` are the bearer tokens of IDENTITIES."""

    client: TestClient
    ids: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    actors: dict[str, Actor] = field(default_factory=dict)

    def headers(self, who: str) -> dict[str, str]:
        return {} if who == "guest" else {"Authorization": f"Bearer {self.tokens[who]}"}


def build_world(runtime: Runtime, people: People, client: TestClient) -> World:
    world = World(client)
    roles = {
        "user": Role.USER,
        "other": Role.CURATOR,
        "owner": Role.CURATOR,
        "admin": Role.ADMIN,
        "superadmin": Role.SUPERADMIN,
        "victim": Role.USER,
    }
    turn = next(_names)
    for name, role in roles.items():
        actor = people.make(f"{name}{turn}", role)
        world.actors[name] = actor
        with runtime.open_ctx(actor, read_only=True) as ctx:
            account = ctx.session.get(Account, actor.user_id)
        assert account is not None
        world.tokens[name] = issue_token(runtime, account)
    owner = world.actors["owner"]
    sync_base_models(runtime)
    with runtime.open_ctx(owner) as ctx:
        image = new_image(ctx, title="secret picture", **PRIVATE)
        image.object_id = store(ctx, Bucket.IMAGES, b"x", Subject("image", image.public_id), mime="image/png").id
        card = new_card(ctx, title="secret card", **PRIVATE)
        gallery = new_gallery(ctx, title="secret gallery", **PRIVATE)
        add_items(ctx, gallery, images=[image])
        render = generation.submit(ctx, Order(prompt="a secret prompt", steps=2, seed=1))
        base_model_id = list_offered(ctx)[0].public_id
        job_id = generation.job_of(ctx, render).public_id
    with runtime.open_ctx(owner, read_only=True) as ctx:
        detail = client.get(f"/api/models/{card.public_id}", headers=world.headers("owner")).json()
    world.ids = {
        "image": image.public_id,
        "card": card.public_id,
        "version": detail["versions"][0]["id"],
        "gallery": gallery.public_id,
        "generation": render.public_id,
        "base_model": base_model_id,
        "job": job_id,
        "object": image.object_id,
        "victim": world.actors["victim"].public_id,
    }
    draft = client.post(
        "/api/uploads/drafts",
        json={"kind": "images", "files": [{"name": "a.png", "role": "image"}]},
        headers=world.headers("owner"),
    )
    assert draft.status_code < 300, draft.text
    world.ids["draft"] = draft.json()["id"]
    made = client.post("/api/auth/tokens", json={"name": "t", "scopes": ["read"]}, headers=world.headers("owner"))
    assert made.status_code < 300, made.text
    world.ids["token"] = made.json()["id"]
    kept = client.post("/api/generations/inputs", content=picture_file(), headers=world.headers("owner"))
    assert kept.status_code == 201, kept.text
    world.ids["input"] = kept.json()["id"]
    sessions = client.get("/api/auth/sessions", headers=world.headers("owner")).json()["items"]
    world.ids["session"] = sessions[0]["id"]
    return world
