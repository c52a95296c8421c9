"""Keys and values of cross attention are calculated once per request, not at every step."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from tests.engine.tiny import make_lora, make_tiny_sd, make_tiny_sdxl
from visionsuit.engine.admission import admit
from visionsuit.engine.base import BaseModelRef, LoraRef, RenderRequest
from visionsuit.engine.base_models import LoadedModel, load_model
from visionsuit.engine.batches import Batch
from visionsuit.engine.catalog import read_base_model
from visionsuit.engine.devices import Device
from visionsuit.engine.rows import Row
from visionsuit.engine.tickets import Ticket


class _Products(TorchFunctionMode):
    """Counts linear layers that are given a prompt's tokens."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self._tokens = tokens
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.linear and args[0].dim() == 3 and args[0].shape[1] == self._tokens:
            self.count += 1
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True, eq=False)
class _Host(Device):
    """The CPU, with as much memory free as the test says."""

    free: list[int] = field(default_factory=lambda: [2**40])

    def free_memory(self) -> int:
        return self.free[-1]


@dataclass
class _Stage:
    """A loaded model without an engine, and two LoRAs for it."""

    host: _Host
    ref: BaseModelRef
    model: LoadedModel
    loras: list[LoraRef]

    @property
    def layers(self) -> int:
        return len(self.model.loras.prompt_layers.layers)

    def rows(
        self, loras: Sequence[LoraRef], *, seeds: tuple[int, ...] = (1,), steps: int = 6, bucket: int = 0
    ) -> list[Row]:
        prompt = f"red heart {len(loras)}"
        request = RenderRequest(
            self.ref, prompt, "", 64, 64, steps, 4.0, seeds, "euler", "trailing", tuple(loras), bucket=bucket
        )
        ticket = Ticket(request)
        ticket.model = self.model
        ticket.packs = {lora.sha256: self.model.loras.packs.get(lora) for lora in loras}
        with torch.inference_mode():
            self.key, rows = admit(ticket)
        return rows

    def batch(self, *people: list[Row]) -> Batch:
        batch = Batch(self.key, self.model, 8)
        for rows in people:
            batch.add(rows)
        return batch

    def step(self, batch: Batch) -> int:
        """Layers that were given a prompt in this call."""
        with torch.inference_mode(), _Products(self.key.tokens) as products:
            batch.step()
        return products.count


@pytest.fixture(scope="module", params=["sd", "sdxl"])
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> _Stage:
    make = make_tiny_sd if request.param == "sd" else make_tiny_sdxl
    folder = make(tmp_path_factory.mktemp("prompt-layers") / request.param)
    ref = read_base_model(folder).ref
    host = _Host("cpu", "CPU")
    model = load_model(ref, host)
    assert isinstance(model, LoadedModel)
    model.residence.enter()
    files = [folder.parent / f"{number}.safetensors" for number in range(2)]
    loras = [LoraRef(make_lora(file, folder, seed=number), file, 0.8) for number, file in enumerate(files)]
    return _Stage(host, ref, model, loras)


def test_only_who_is_new_costs_them(stage: _Stage) -> None:
    batch = stage.batch(stage.rows([]), stage.rows(stage.loras[:1]))
    assert stage.layers
    assert [stage.step(batch) for _ in range(3)] == [2 * stage.layers, 0, 0]
    batch.add(stage.rows(stage.loras))
    assert [stage.step(batch) for _ in range(2)] == [stage.layers, 0]
    batch.close()


def test_pictures_of_one_request_share_them(stage: _Stage) -> None:
    batch = stage.batch(stage.rows(stage.loras, seeds=(1, 2, 3)))
    assert [stage.step(batch) for _ in range(2)] == [stage.layers, 0]
    batch.close()


def test_they_go_with_the_last_step(stage: _Stage) -> None:
    [short], long = stage.rows([], steps=1), stage.rows(stage.loras[:1], steps=3)
    batch = stage.batch([short], long)
    stage.step(batch)
    assert batch.rows == long
    assert not short.inputs.projected
    assert len(long[0].inputs.projected) == stage.layers
    batch.close()


def test_a_fixed_shape_keeps_them_whatever_memory_is_free(stage: _Stage) -> None:
    stage.host.free.append(2**20)
    batch = stage.batch(stage.rows(stage.loras, bucket=2), stage.rows(stage.loras[:1], bucket=2))
    assert [stage.step(batch) for _ in range(2)] == [2 * stage.layers, 0]
    batch.close()
    stage.host.free.pop()


def test_in_a_fixed_shape_everybody_keeps_their_mix_after_a_call_that_failed(stage: _Stage) -> None:
    """Pictures are tried one by one then, through the same slot."""

    def people() -> list[list[Row]]:
        return [stage.rows(loras, bucket=2) for loras in (stage.loras, stage.loras[1:])]

    undisturbed, disturbed = people(), people()
    for rows in (undisturbed, disturbed):
        batch = stage.batch(*rows)
        stage.step(batch)
        if rows is disturbed:
            _fail_once(stage.model.unet)
        while not batch.is_empty:
            stage.step(batch)
        batch.close()
    for [one], [other] in zip(undisturbed, disturbed, strict=True):
        assert not other.ticket.is_over
        assert torch.allclose(one.latent, other.latent, atol=1e-4)


def _fail_once(unet: Any) -> None:
    real = unet.forward

    def forward(*args: Any, **options: Any) -> Any:
        unet.forward = real
        raise RuntimeError("once")

    unet.forward = forward


def test_without_memory_for_them_the_picture_is_the_same(stage: _Stage) -> None:
    kept, plain = stage.rows(stage.loras, steps=2), stage.rows(stage.loras, steps=2)
    for rows, free, counts in ((kept, 2**40, [stage.layers, 0]), (plain, 2**20, [stage.layers] * 2)):
        stage.host.free.append(free)
        batch = stage.batch(rows)
        assert [stage.step(batch) for _ in range(2)] == counts
        batch.close()
    assert torch.equal(kept[0].latent, plain[0].latent)


def test_who_needs_more_than_an_eighth_of_what_is_free_keeps_nothing(stage: _Stage) -> None:
    layers = stage.model.loras.prompt_layers
    embeds = torch.zeros(2, 77, 8)
    taken = 2 * sum(layer(torch.zeros(2, 77, layer.in_features)).nbytes for layer in layers.layers)
    assert layers.fits([embeds], 8 * taken)
    assert not layers.fits([embeds], 8 * taken - 8)
    assert not layers.fits([embeds, embeds], 8 * taken)
