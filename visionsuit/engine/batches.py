"""Pictures of one model and size that share calls of the UNet, each at its own step with its own LoRA mix."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from visionsuit.engine.base import OutOfDeviceMemory
from visionsuit.engine.base_models import LoadedModel
from visionsuit.engine.batch_sizes import SizeKey
from visionsuit.engine.call_timer import CallTimer
from visionsuit.engine.conditioning import join
from visionsuit.engine.devices import is_out_of_memory
from visionsuit.engine.lora_names import Shape
from visionsuit.engine.lora_packs import MixKey
from visionsuit.engine.merge_policy import CallKey
from visionsuit.engine.rows import Row
from visionsuit.engine.slots import Forwards, SlotPool

#: Ranks that a fixed shape may have.
FIXED_RANKS = (32, 64, 128, 256)


class FixedShape(NamedTuple):
    """Pictures in every call and rank of every mix, filled up with what nobody looks at: the same request in the same
    shape is the same to the last bit, whoever is beside it."""

    pictures: int
    rank: int


class BatchKey(NamedTuple):
    """What has to agree for pictures to share a call; prompts, mixes, seeds, steps and samplers need not.

    `rows` of the UNet's batch per picture; `alone` is the mix where it cannot be put into slots, else None; `shape` is
    what all calls have in the reproducible mode, else None.
    """

    model: str
    height: int
    width: int
    tokens: int
    rows: int
    alone: MixKey | None
    shape: FixedShape | None = None


@dataclass(slots=True)
class _Plan:
    """What a call needs as long as the same pictures take part."""

    forwards: Forwards
    inputs: dict[str, Any]
    guidance: torch.Tensor


class Batch:
    """
    Args:
        cap: most pictures in one call, at least 1.
        give_back: asks others for memory before pictures lose their places; whether there may be more now.

    Attributes:
        rows: pictures of the next call, in the order of their slots.
        waiting: admitted pictures without a place; they keep all they have got.
        places: how many pictures share a call just now.
    """

    def __init__(
        self, key: BatchKey, model: LoadedModel, cap: int, give_back: Callable[[], bool] = lambda: False
    ) -> None:
        self.key, self.model = key, model
        self.cap = self.places = key.shape.pictures if key.shape else cap
        self.rows: list[Row] = []
        self.waiting: list[Row] = []
        self._give_back = give_back
        self._pool: SlotPool | None = None
        self._plan: _Plan | None = None
        self._merged: MixKey | None = None
        self._timer = CallTimer(model.device)

    @property
    def is_empty(self) -> bool:
        return not self.rows and not self.waiting

    @property
    def people(self) -> int:
        """Requests in it that are not in the background."""
        return len({row.ticket.number for row in [*self.rows, *self.waiting] if not row.ticket.request.background})

    def add(self, rows: Iterable[Row]) -> None:
        self.waiting += rows
        self._plan = None

    def leave_merged(self) -> None:
        """Others need the merged weights; from the next call on these pictures use slots."""
        if self._merged is not None and self.key.alone is None:
            self.model.loras.merged.release(self)
            self._plan = None

    def drop_withdrawn(self) -> None:
        """Let the pictures go whose callers gave up, or whose ticket failed."""
        if any(row.ticket.withdrawn or row.ticket.is_over for row in [*self.rows, *self.waiting]):
            self._keep([row for row in self.rows if not row.ticket.withdrawn and not row.ticket.is_over])
            self.waiting = [row for row in self.waiting if not row.ticket.withdrawn and not row.ticket.is_over]

    def step(self) -> list[Row]:
        """One call of the UNet. Returns the pictures that have all their steps now; they are no longer in the batch.

        A picture that fails takes its ticket with it and nobody else.

        Raises:
            OutOfDeviceMemory: even one picture is too much, or the fixed shape; all are as they were before.
        """
        if self._plan is None:
            self._arrange()
        try:
            if self._plan is None:
                self._plan = self._make_plan()
            self._timer.start()
            answers = self._call(self.rows, self._plan)
        except Exception as error:  # only CUDA has a type of its own for being out of memory
            if is_out_of_memory(error) and (len(self.rows) == 1 or self.key.shape):
                raise OutOfDeviceMemory(str(error)) from None
            if not is_out_of_memory(error):
                self._step_one_by_one()
            elif not self._give_back():
                self._shrink()
        else:
            self._advance(self.rows, answers)
            self._timer.stop(self._measure())
        return self._take_finished()

    def close(self) -> None:
        """Give slots and merged weights back."""
        loras = self.model.loras
        # What the last call was bound to holds the slots and what it kept of prompts.
        loras.unet.bind([])
        if self._pool is not None:
            loras.return_pool(self._pool)
            self._pool = None
        loras.merged.release(self)
        self._plan = None

    # One call

    def _call(self, rows: list[Row], plan: _Plan) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """(model input, prediction after guidance) of each row, [1, C, h, w] fp32; no row is changed."""
        model, each = self.model, self.key.rows
        model.loras.unet.bind(plan.forwards)
        count, rows = len(rows), self._padded(rows)
        scaled = torch.cat([row.model_input() for row in rows])
        timesteps = torch.tensor([float(row.timestep) for row in rows], dtype=torch.float32, device=model.device)
        told = [row.extra for row in rows if row.extra is not None]
        seen = torch.cat([scaled, torch.cat(told)], dim=1) if told else scaled
        seen, timesteps = seen.repeat_interleave(each, 0).to(model.dtype), timesteps.repeat_interleave(each)
        output = model.predict(seen, timesteps, plan.inputs).float()
        if each == 2:
            without, with_prompt = output[0::2], output[1::2]
            output = without + plan.guidance * (with_prompt - without)
        return list(zip(scaled.split(1), output.split(1), strict=True))[:count]

    def _padded(self, rows: list[Row]) -> list[Row]:
        """Filled up to the fixed shape with the first one, whose other answers nobody reads."""
        missing = self.key.shape.pictures - len(rows) if self.key.shape else 0
        return rows + rows[:1] * missing

    @staticmethod
    def _advance(rows: list[Row], answers: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        for row, (scaled, prediction) in zip(rows, answers, strict=True):
            try:
                row.advance(scaled, prediction)
            except Exception as error:  # whatever goes wrong with one picture is that one's trouble
                row.ticket.fail(error)

    def _step_one_by_one(self) -> None:
        """After a call failed that no memory was wanting for: find out whose fault it is."""
        for number, row in enumerate(self.rows):
            try:
                slot = 0 if self.key.shape else number
                self._advance([row], self._call([row], self._plan_of([row], self._forwards_alone(slot, row), slot)))
            except Exception as error:  # this is the one
                row.ticket.fail(error)
        # In a fixed shape all of them went through one slot.
        self._plan = None
        self.drop_withdrawn()

    def _shrink(self) -> None:
        """After a call was too large: half of the pictures wait, with all they have got."""
        # Until memory is tried again, fewer are chosen.
        self.model.loras.sizes.note_too_many(self._size_of(self.rows), len(self.rows))
        self._plan = None
        self.model.loras.unet.bind([])
        for row in [*self.rows, *self.waiting]:
            row.forget_projections()

    def _take_finished(self) -> list[Row]:
        finished = [row for row in self.rows if row.is_denoised and not row.ticket.is_over]
        for row in finished:
            row.forget_projections()
        self.drop_withdrawn()
        if finished:
            self._keep([row for row in self.rows if not row.is_denoised])
        return finished

    # Who takes part

    def _arrange(self) -> None:
        """Fill the places: everybody's first picture before anybody's second, then by arrival."""
        turns: dict[int, list[Row]] = defaultdict(list)
        for row in [*self.rows, *self.waiting]:
            turns[row.ticket.number].append(row)
        order: list[tuple[int, int, Row]] = []
        for number, own in turns.items():
            own.sort(key=lambda row: (row.calls_left, row.number))
            order += [(turn, number, row) for turn, row in enumerate(own)]
        order.sort(key=lambda entry: entry[:2])
        self.places = self._most([row for _, _, row in order])
        chosen = {id(row) for row in self._that_fit([row for _, _, row in order[: self.places]])}
        out = [row for row in self.rows if id(row) not in chosen]
        joining = [row for row in self.waiting if id(row) in chosen]
        self._keep([row for row in self.rows if id(row) in chosen])
        self.rows += joining
        self.waiting = [row for row in self.waiting if id(row) not in chosen] + out

    def _most(self, rows: list[Row]) -> int:
        return self.cap if self.key.shape else self.model.loras.sizes.most(self._size_of(rows), self.cap)

    def _size_of(self, rows: list[Row]) -> SizeKey:
        beside = self._merged is None and any(row.mix.key for row in rows)
        return self.key.height, self.key.width, self.key.rows, beside

    def _that_fit(self, rows: list[Row]) -> list[Row]:
        """As many of `rows` as their LoRAs have slots in memory; at least one."""
        if len({row.mix.key for row in rows}) < 2:
            return rows
        while len(rows) > 1:
            ranks: dict[Shape, int] = {}
            for row in rows:
                for shape, rank in row.ranks.items():
                    ranks[shape] = max(rank, ranks.get(shape, 0))
            if self.model.loras.has_room(self._slots(), len(rows), ranks):
                break
            rows = rows[:-1]
        return rows

    def _keep(self, rows: list[Row]) -> None:
        """Let the others go; the last ones move into the gaps, so that few slots change."""
        staying = {id(row) for row in rows}
        if len(staying) == len(self.rows):
            return
        kept = list(self.rows)
        place = 0
        while place < len(kept):
            if id(kept[place]) in staying:
                place += 1
            elif id(kept[-1]) in staying:
                kept[place] = kept.pop()
            else:
                kept.pop()
        self.rows = kept
        self._plan = None

    # How they are calculated

    def _make_plan(self) -> _Plan:
        self._merged = None
        mixes = {row.mix.key for row in self.rows}
        if mixes == {()}:
            return self._plan_of(self.rows, [])
        loras = self.model.loras
        if len(mixes) == 1:
            row = self.rows[0]
            calls = max(row.calls_left for row in self.rows)
            awaited = any(other.mix.key != row.mix.key for other in self.waiting)
            forced = self.key.alone is not None
            free = not awaited and self.key.shape is None
            if forced or (free and loras.may_merge(row.mix, self, self._call_key, calls)):
                self._merged = row.mix.key
                return self._plan_of(self.rows, loras.merged.take(self, row.mix))
        loras.merged.release(self)
        for slot, row in enumerate(self.rows):
            self._slots().write(slot, row.mix.key, row.mix.parts)
        return self._plan_of(self.rows, self._slot_forwards(0, len(self.rows)))

    def _slot_forwards(self, start: int, stop: int) -> Forwards:
        slots = self._slots()
        if self.key.shape is None:
            return slots.forwards(start, stop)
        # What the slots of nobody hold is multiplied with what nobody reads.
        slots.reserve(self.cap)
        return slots.forwards(0, self.cap)

    def _slots(self) -> SlotPool:
        if self._pool is None:
            self._pool = self.model.loras.lease_pool(self.key.rows, self.key.shape.rank if self.key.shape else 0)
        return self._pool

    def _forwards_alone(self, slot: int, row: Row, only: frozenset[int] | None = None) -> Forwards:
        """For nobody but the picture in this slot; `only` as for the slots."""
        if not row.mix.key:
            return []
        if self._merged is not None:
            return self.model.loras.merged.take(self, row.mix)
        self._slots().write(slot, row.mix.key, row.mix.parts)
        if only is not None:
            return self._slots().forwards(slot, slot + 1, only=only)
        return self._slot_forwards(slot, slot + 1)

    def _plan_of(self, rows: list[Row], forwards: Forwards, first_slot: int = 0) -> _Plan:
        padded = self._padded(rows)
        inputs = join([row.inputs for row in padded])
        loras = self.model.loras
        # In a fixed shape whether they are kept must not depend on what else is in memory.
        if loras.keeps_projections([row.inputs.embeds for row in padded], always=self.key.shape is not None):
            for slot, row in enumerate(rows, first_slot):
                if not row.inputs.projected:
                    # One by one, so that they do not depend on who is beside them.
                    own = self._forwards_alone(slot, row, loras.prompt_layers.ids)
                    row.inputs.projected.extend(loras.prompt_layers.project(row.inputs.embeds, own))
            projected = [row.inputs.projected for row in padded]
            forwards = loras.prompt_layers.replace(forwards, inputs["encoder_hidden_states"], projected)
        guidance = torch.tensor([row.guidance for row in padded], dtype=torch.float32, device=self.model.device)
        return _Plan(forwards, inputs, guidance.view(-1, 1, 1, 1))

    @property
    def _call_key(self) -> CallKey:
        return self.key.height, self.key.width, self.key.rows, len(self.rows)

    def _measure(self) -> Callable[[float], None]:
        """What to do with the seconds of the call that was just made."""
        loras, size, call, pictures = self.model.loras, self._size_of(self.rows), self._call_key, len(self.rows)

        def note(seconds: float) -> None:
            loras.policy.note_call(call, slots=size[-1], seconds=seconds)
            loras.sizes.note_call(size, pictures, seconds)

        return note
