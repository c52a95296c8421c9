from collections.abc import Callable

from starlette.testclient import TestClient

from tests.conftest import People
from tests.generation.conftest import lora_bytes, make_card
from visionsuit.core.actor import Actor
from visionsuit.modelcards.queries import get_version
from visionsuit.modelcards.tables import ModelType
from visionsuit.runtime import Runtime
from visionsuit.storage.base import Bucket
from visionsuit.visibility import Visibility


def test_the_file_says_whether_it_fits(
    site: Runtime, people: People, client: TestClient, bearer: Callable[[Actor], dict[str, str]]
) -> None:
    good = make_card(site, people.curator, "Good", data=lora_bytes(seed=1))
    wide = make_card(site, people.curator, "Wide", data=lora_bytes(seed=2, inputs=96))
    secret = make_card(site, people.curator, "Secret", data=lora_bytes(seed=3), visibility=Visibility.PRIVATE)
    large = make_card(site, people.curator, "Large", type=ModelType.CHECKPOINT)
    lost = make_card(site, people.curator, "Lost", data=lora_bytes(seed=4))
    with site.open_ctx(people.curator, read_only=True) as ctx:
        _, version = get_version(ctx, lost.public_id)
    site.storage.delete(Bucket.MODELS, version.object_id)
    asked = {"model_ids": [card.public_id for card in (good, wide, secret, large, lost)] + ["x", "A" * 16]}
    found = client.post("/api/loras/fits", json=asked).json()["items"]
    assert [(one["model_id"], one["fits"]) for one in found] == [
        (good.public_id, True),
        (wide.public_id, False),
        (lost.public_id, None),
    ]
    assert "96" in found[1]["reason"]
    own = client.post("/api/loras/fits", json=asked, headers=bearer(people.curator)).json()["items"]
    assert [one["fits"] for one in own] == [True, False, True, None]
    unknown = client.post("/api/loras/fits", json={**asked, "base_model_id": "A" * 16})
    assert unknown.status_code == 422
