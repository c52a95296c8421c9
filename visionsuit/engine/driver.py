"""The thread that owns the device: it loads models, encodes, calls the UNet and decodes, for all who wait.

Everything that touches a model happens here, so nothing of it needs a lock. Between two calls of the UNet at most one
picture is decoded, and requests are admitted for no longer than part of a call takes, very long prompts a few chunks a
turn, so nobody waits long for another's beginning or end. Batches (other models, other sizes) take turns, a call each.
Requests in the background have no turn while people render.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch

from visionsuit.engine.admission import admit, check, must_wait
from visionsuit.engine.background import give_back, make_way, people_come, people_render
from visionsuit.engine.base import EngineNotReady, OutOfDeviceMemory, Phase, Picture
from visionsuit.engine.batches import Batch, BatchKey
from visionsuit.engine.decoding import decode, paste
from visionsuit.engine.devices import Device, is_out_of_memory, set_threads
from visionsuit.engine.lora_packs import Pack
from visionsuit.engine.model_cache import ModelCache
from visionsuit.engine.prompts import Encoding, Unfinished
from visionsuit.engine.rows import Row
from visionsuit.engine.tickets import CalledOff, Ticket
from visionsuit.engine.whole import WholeModel

_T = TypeVar("_T")

#: Part of a call's time that may go by between two calls until no further request is admitted: who joins late makes
#: calls of its own at the end, where few share them.
_ADMITTING_SHARE = 0.5


class Driver:
    """
    Args:
        threads: of torch on the CPU.

    Attributes:
        models: what is loaded now; other threads may look at it, and the device thread alone may use it.
        calls: of the UNet, so far.
    """

    def __init__(self, device: Device, threads: int | None, models: ModelCache) -> None:
        self._device = device
        self._threads = threads
        self.models = models
        self._tickets: list[Ticket] = []
        self._batches: deque[Batch] = deque()
        self._denoised: deque[Row] = deque()
        self._news = threading.Condition()
        self._arrived: list[Ticket] = []
        self._nudged = False
        self._closing = False
        self.calls = 0
        self._call_s = 0.0
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)
        self._thread.start()

    # Any thread

    @property
    def tickets(self) -> int:
        """Requests inside."""
        return len(self._tickets) + len(self._arrived)

    @property
    def people(self) -> int:
        """Requests inside that are not in the background."""
        return sum(not ticket.request.background for ticket in [*self._tickets, *self._arrived])

    @property
    def standing(self) -> int:
        """Requests in the background that wait for people's."""
        return sum(ticket.stands for ticket in list(self._tickets))

    @property
    def batches(self) -> list[Batch]:
        return list(self._batches)

    def submit(self, ticket: Ticket) -> None:
        """Raises: EngineNotReady after `close`."""
        with self._news:
            if self._closing:
                raise EngineNotReady("The generator was closed.")
            self._arrived.append(ticket)
            self._nudge()

    def hand_packs(self, ticket: Ticket, packs: Mapping[str, Pack]) -> None:
        """The request's LoRAs are read; it may begin."""
        with self._news:
            ticket.packs = dict(packs)
            self._nudge()

    def withdraw(self, ticket: Ticket) -> None:
        """Nobody waits for it any more; its rows leave before the next call."""
        with self._news:
            ticket.withdrawn = True
            self._nudge()

    def close(self) -> None:
        """Everything that is not done fails; the models are dropped."""
        with self._news:
            self._closing = True
            self._nudge()
        self._thread.join()

    def _nudge(self) -> None:
        self._nudged = True
        self._news.notify_all()

    # The device thread

    def _run(self) -> None:
        set_threads(self._threads)
        while self._await_work():
            try:
                self._turn()
            except Exception as error:  # the last line of defence: callers get an answer whatever happens
                self._fail_all(error)
        self._fail_all(EngineNotReady("The generator was closed."))
        self._tickets.clear()
        self.models.clear()

    def _await_work(self) -> bool:
        with self._news:
            while not (self._nudged or self._batches or self._denoised or self._closing):
                self._news.wait()
            self._nudged = False
            self._tickets += self._arrived
            self._arrived.clear()
            return not self._closing

    def _turn(self) -> None:
        # Tickets first: whoever gives up meanwhile keeps the model until the next turn.
        self._tickets = [ticket for ticket in self._tickets if not ticket.withdrawn and not ticket.is_over]
        for batch in self._batches:
            batch.drop_withdrawn()
        self._denoised = deque(row for row in self._denoised if not row.ticket.withdrawn and not row.ticket.is_over)
        # A model may leave the device when requests are let in, so nobody holds anything of it then.
        self._close_empty_batches()
        self._let_in()
        if self._batches:
            batch = self._batches[0]
            self._batches.rotate(-1)
            self._step(batch)
        if self._denoised:
            self._decode(self._denoised.popleft())

    def _let_in(self) -> None:
        """Provide models in the order of arrival, people first, and admit one request; more while that takes little
        time."""
        until = time.monotonic() + self._call_s * _ADMITTING_SHARE
        in_use = self._in_use()
        has_room = True
        held_up: set[str] = set()
        for ticket in sorted(self._tickets, key=lambda ticket: ticket.request.background):
            ref = ticket.request.base_model
            if ticket.request.background and people_render(self._tickets):
                self._make_way()
                ticket.stand()
                continue
            try:
                if ticket.model is None:
                    if not has_room:
                        continue
                    if not ticket.request.background and not self.models.has_on_device(ref):
                        self._make_way()
                        in_use = self._in_use()
                    if not self.models.has_room(ref, in_use):
                        # Those behind wait too, else the models in use would never go; who has one goes on.
                        has_room = False
                        continue
                    model = self._with_memory(partial(self.models.get, ref, in_use), in_use)
                    in_use.add(ref.key)
                    check(ticket.request, model)
                    if ticket.packs is None:
                        # What is in memory need not be fetched by the caller, which would cost a call's time.
                        ticket.packs = model.loras.packs.find(ticket.request.loras)
                    ticket.provide(model)
                if ticket.packs is not None and not ticket.admitted and ref.key not in held_up:
                    if not self._begin(ticket, in_use):
                        held_up.add(ref.key)
                    elif isinstance(ticket.model, WholeModel) or time.monotonic() >= until:
                        self._nudged = True  # there may be more to admit after the next call
                        return
            except Unfinished:
                # All others have their turn before its next one.
                self._tickets.remove(ticket)
                self._tickets.append(ticket)
                self._nudged = True
                if time.monotonic() >= until:
                    return
            except Exception as error:  # a model or a request that fails is its caller's trouble alone
                ticket.fail(error)

    def _in_use(self) -> set[str]:
        """Keys of the models that somebody counts on."""
        return {ticket.request.base_model.key for ticket in self._tickets if ticket.model is not None}

    def _begin(self, ticket: Ticket, in_use: set[str]) -> bool:
        """Encode and give every picture its row, or the one that it had. False: it has to wait for a mix that must be
        alone."""
        if not ticket.request.background:
            self._make_way()
            in_use = self._in_use()
        if isinstance(ticket.model, WholeModel):
            ticket.go_on()
            self._render_whole(ticket, ticket.model, in_use)
            return True
        if must_wait(ticket):
            return False
        ticket.go_on()
        if ticket.aside:
            self._bring_back(ticket)
            return True
        if ticket.encoding is None:
            ticket.encoding = Encoding()
            ticket.phase(Phase.ENCODING)
        tiled = False

        def encode() -> tuple[BatchKey, list[Row]]:
            nonlocal tiled
            use_tiles, tiled = tiled, True
            with torch.inference_mode():
                return admit(ticket, tiled=use_tiles)

        self._add(ticket, *self._with_memory(encode, in_use))
        ticket.encoding = None
        return True

    def _add(self, ticket: Ticket, key: BatchKey, rows: list[Row]) -> None:
        batch = next((batch for batch in self._batches if batch.key == key), None)
        if batch is None:
            request = ticket.request
            batch = Batch(key, ticket.model, self._device.batch_for(request.width, request.height), self._give_back)
            if key.alone is not None:
                for other in self._batches:
                    if other.model is ticket.model:
                        other.leave_merged()
                ticket.model.loras.merged.reserve(batch, key.alone)
            self._batches.appendleft(batch)
        ticket.admitted = True
        batch.add(rows)

    def _bring_back(self, ticket: Ticket) -> None:
        """People are done: its rows go on where they were."""
        self._denoised += ticket.aside.pop(None, [])
        for key, rows in ticket.aside.items():
            self._add(ticket, key, rows)
        ticket.aside.clear()
        ticket.admitted = True

    def _make_way(self) -> None:
        make_way(self._tickets, self._batches, self._denoised)

    def _give_back(self) -> bool:
        """Whether those who stand held memory until now."""
        if not give_back(self._tickets):
            return False
        self.models.keep_only(self._in_use())
        return True

    def _render_whole(self, ticket: Ticket, model: WholeModel, in_use: set[str]) -> None:
        """One picture from end to end; all others have their turn before the next."""
        number, init = ticket.pictures, ticket.request.init
        if ticket.request.background:
            ticket.called_off = lambda: people_come(list(self._arrived), self._tickets)
        try:
            picture = self._with_memory(partial(model.render, ticket, number), in_use)
        except CalledOff:
            return
        if init is not None:
            picture = replace(picture, pixels=paste(picture.pixels, init, number))
        ticket.deliver(number, picture)
        self._tickets.remove(ticket)
        self._tickets.append(ticket)
        self.calls += 1

    def _step(self, batch: Batch) -> None:
        began = time.monotonic()
        with torch.inference_mode():
            try:
                self._denoised += self._with_memory(batch.step, self._in_use())
            except OutOfDeviceMemory as error:
                for row in list(batch.rows):
                    row.ticket.fail(_too_large(row.ticket, self._device, error))
                batch.drop_withdrawn()
        self._call_s = time.monotonic() - began
        self.calls += 1

    def _decode(self, row: Row) -> None:
        ticket = row.ticket
        if ticket.is_denoised:
            ticket.phase(Phase.DECODING)
        in_use = self._in_use()
        tiled = False

        def pixels() -> Picture:
            nonlocal tiled
            use_tiles, tiled = tiled, True
            with torch.inference_mode():
                picture = decode(ticket.model, row.latent, tiled=use_tiles)
            init = ticket.request.init
            return Picture(picture if init is None else paste(picture, init, row.number), row.seed)

        try:
            ticket.deliver(row.number, self._with_memory(pixels, in_use))
        except OutOfDeviceMemory as error:
            ticket.fail(_too_large(ticket, self._device, error))
        except Exception as error:  # a picture that cannot be decoded is its caller's trouble alone
            ticket.fail(error)

    def _with_memory(self, action: Callable[[], _T], in_use: set[str]) -> _T:
        """Run `action`, and once more with all caches freed if memory was wanting.

        Raises:
            OutOfDeviceMemory: it is wanting still.
        """
        try:
            return action()
        except Exception as error:  # only CUDA has a type of its own for this
            if not isinstance(error, OutOfDeviceMemory) and not is_out_of_memory(error):
                raise
        # After the handler, when the failed attempt's tensors are no longer held by its traceback.
        give_back(self._tickets)
        self.models.keep_only(in_use)
        try:
            return action()
        except Exception as error:  # as above
            if not is_out_of_memory(error):
                raise
            raise OutOfDeviceMemory(f"{self._device.owner} has not enough memory free.".capitalize()) from error
        finally:
            self._device.free_cached()

    def _close_empty_batches(self) -> None:
        for batch in [batch for batch in self._batches if batch.is_empty]:
            batch.close()
            self._batches.remove(batch)
            self._nudged = True  # somebody may have waited for what it held

    def _fail_all(self, error: Exception) -> None:
        for batch in self._batches:
            batch.close()
        self._batches.clear()
        self._denoised.clear()
        with self._news:
            self._tickets += self._arrived
            self._arrived.clear()
        for ticket in self._tickets:
            ticket.fail(error)


def _too_large(ticket: Ticket, device: Device, error: Exception) -> OutOfDeviceMemory:
    size = f"{ticket.request.width}x{ticket.request.height}"
    return OutOfDeviceMemory(
        f"{size} pixels need more memory than {device.owner} has free, "
        "even one picture at a time. Choose a smaller size."
    )
