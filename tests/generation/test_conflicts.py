"""The conflict meter over REST: what it says, whom it tells, and that a slider is answered from memory."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save
from starlette.testclient import TestClient

from tests.conftest import People
from tests.generation.conftest import lora_bytes, make_card
from visionsuit.core.actor import Actor
from visionsuit.generation.conflicts import Meter, find_files
from visionsuit.generation.order import LoraOrder
from visionsuit.modelcards.tables import ModelCard, ModelType
from visionsuit.runtime import Runtime
from visionsuit.visibility import Visibility

Bearer = Callable[[Actor], dict[str, str]]


def body(*cards: ModelCard, weights: list[float] | None = None) -> dict[str, Any]:
    given = weights or [1.0] * len(cards)
    return {
        "loras": [{"model_id": card.public_id, "weight": weight} for card, weight in zip(cards, given, strict=True)]
    }


def ask(client: TestClient, headers: dict[str, str], sent: dict[str, Any]) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while True:
        answer = client.post("/api/loras/conflicts", json=sent, headers=headers)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        if found["is_complete"] or time.monotonic() > deadline:
            return found


def scaled(data: bytes, factor: float) -> bytes:
    return save({name: tensor * np.float32(factor) for name, tensor in load(data).items()})


def test_it_says_which_two_and_who_drowns(site: Runtime, people: People, client: TestClient, bearer: Bearer) -> None:
    ink = make_card(site, people.curator, "Ink", data=lora_bytes(seed=11))
    neon = make_card(site, people.curator, "Neon", data=scaled(lora_bytes(seed=12), 3))
    twin = make_card(site, people.curator, "Ink again", data=scaled(lora_bytes(seed=11), 1.01))
    headers = bearer(people.user)
    found = ask(client, headers, body(ink, neon, twin))
    assert found["unmeasured"] == []
    pairs = {(one["first"], one["second"]): one for one in found["pairs"]}
    assert found["pairs"][0] in (pairs[0, 1], pairs[1, 2])
    assert pairs[0, 1]["verdict"] == "drowned"
    assert pairs[0, 1]["sentence"] == "“Neon” drowns “Ink”: its change is 9 times as large."
    assert pairs[0, 1]["share"] == pytest.approx(0.1, abs=0.02)
    assert pairs[0, 2]["verdict"] == "alike"
    assert pairs[0, 2]["overlap"] == pytest.approx(1.0, abs=1e-3)
    assert pairs[0, 2]["layers"][0]["name"].startswith("unet.")
    # Weights only scale: the same files, other answers.
    even = ask(client, headers, body(ink, neon, weights=[1.0, 0.11]))
    assert even["pairs"][0]["verdict"] != "drowned"
    assert ask(client, headers, body(ink, neon, weights=[1.0, 0.0]))["pairs"] == []
    assert ask(client, headers, body(ink)) == {"pairs": [], "is_complete": True, "unmeasured": [], "partial": []}


def test_hidden_loras_are_not_there(site: Runtime, people: People, client: TestClient, bearer: Bearer) -> None:
    seen = make_card(site, people.curator, "Seen", data=lora_bytes(seed=21))
    hidden = make_card(site, people.curator, "Hidden", data=lora_bytes(seed=22), visibility=Visibility.PRIVATE)
    sent = body(seen, hidden)
    assert client.post("/api/loras/conflicts", json=sent).status_code == 401
    refused = client.post("/api/loras/conflicts", json=sent, headers=bearer(people.user))
    assert refused.status_code == 404
    assert "Hidden" not in refused.text
    unknown = client.post("/api/loras/conflicts", json={"loras": [{"model_id": "A" * 16}]}, headers=bearer(people.user))
    assert unknown.json()["error"]["message"] == refused.json()["error"]["message"]
    assert client.post("/api/loras/conflicts", json=sent, headers=bearer(people.curator)).status_code == 200


def test_what_cannot_be_measured_is_named(site: Runtime, people: People, client: TestClient, bearer: Bearer) -> None:
    good = make_card(site, people.curator, "Good", data=lora_bytes(seed=31))
    wide = make_card(site, people.curator, "Wide", data=lora_bytes(seed=32, inputs=96))
    empty = {name: np.full_like(tensor, np.nan) for name, tensor in load(lora_bytes(seed=33)).items()}
    nan = make_card(site, people.curator, "Not a number", data=save(empty))
    junk = make_card(site, people.curator, "Junk", data=b"x" * 400)
    other = make_card(site, people.curator, "Other", data=lora_bytes(seed=34))
    found = ask(client, bearer(people.user), body(good, wide, nan, junk, other))
    assert found["is_complete"]
    assert found["unmeasured"] == [1, 2, 3]
    assert [(one["first"], one["second"]) for one in found["pairs"]] == [(0, 4)]
    checkpoint = make_card(site, people.curator, "Big", type=ModelType.CHECKPOINT)
    headers = bearer(people.user)
    assert client.post("/api/loras/conflicts", json=body(good, checkpoint), headers=headers).status_code == 422
    assert client.post("/api/loras/conflicts", json=body(good, weights=[9]), headers=headers).status_code == 422
    assert client.post("/api/loras/conflicts", json=body(good, good), headers=headers).status_code == 422


def test_what_is_counted_in_part_is_named(site: Runtime, people: People, client: TestClient, bearer: Bearer) -> None:
    tensors = load(lora_bytes(seed=35))
    ups = {name: tensor for name, tensor in tensors.items() if name.endswith("lora_B.weight")}
    magnitudes = {
        name.replace("lora_B.weight", "lora_magnitude_vector"): np.ones(len(up), np.float32) for name, up in ups.items()
    }
    dora = make_card(site, people.curator, "Dora", data=save(tensors | magnitudes))
    plain = make_card(site, people.curator, "Plain", data=lora_bytes(seed=36))
    found = ask(client, bearer(people.user), body(plain, dora))
    assert found["partial"] == [1]
    assert found["unmeasured"] == []
    assert len(found["pairs"]) == 1


def test_a_slider_reads_no_file(site: Runtime, people: People) -> None:
    cards = [make_card(site, people.curator, f"Slide {seed}", data=lora_bytes(seed=seed)) for seed in (41, 42, 43)]
    meter = Meter()
    try:
        with site.open_ctx(people.user, read_only=True) as ctx:
            base, files = find_files(ctx, None, [LoraOrder(card.public_id) for card in cards])
        first = meter.answer(site, base, files, patience_s=60)
        assert first.is_complete
        assert len(first.meetings) == 3
        gone = site.storage.local_path
        for file in files:
            path = gone("models", file.object_id)  # type: ignore[arg-type]
            assert isinstance(path, Path)
            path.unlink()
        began = time.process_time()
        for _ in range(50):
            assert meter.answer(site, base, files).meetings == first.meetings
        assert time.process_time() - began < 2
    finally:
        meter.close()


def test_an_answer_does_not_wait_for_long(site: Runtime, people: People) -> None:
    cards = [make_card(site, people.curator, f"Slow {seed}", data=lora_bytes(seed=seed)) for seed in (51, 52)]
    meter = Meter()
    try:
        with site.open_ctx(people.user, read_only=True) as ctx:
            base, files = find_files(ctx, None, [LoraOrder(card.public_id) for card in cards])
        at_once = meter.answer(site, base, files, patience_s=0)
        assert at_once.meetings == [] or at_once.is_complete
        assert meter.answer(site, base, files, patience_s=60).is_complete
    finally:
        meter.close()
