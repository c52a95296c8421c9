"""Renders that nobody waits for: they stand while people render, and go on with what they had got.

Whoever stands is in no batch and counts on no model, so people have places, merged weights and the device as if it were
not there; latents, schedulers, prompts and what was calculated of them are kept. On the device are people's pictures or
those of the background, never both. A picture that is rendered whole cannot stand: it is left, and begins anew.
"""

from collections import deque
from collections.abc import Iterable

from visionsuit.engine.batches import Batch
from visionsuit.engine.rows import Row
from visionsuit.engine.tickets import Ticket
from visionsuit.engine.whole import WholeModel


def people_render(tickets: Iterable[Ticket]) -> bool:
    """Whether the background has to stand: a person's request has rows, or is about to, or gets one picture after the
    other."""
    return any(
        (ticket.admitted or ticket.encoding is not None or isinstance(ticket.model, WholeModel)) and not ticket.is_over
        for ticket in tickets
        if not ticket.request.background
    )


def people_come(arrived: Iterable[Ticket], tickets: Iterable[Ticket]) -> bool:
    """Whether a person's request could begin, were the device free now."""
    ready = [*arrived, *(ticket for ticket in tickets if ticket.packs is not None)]
    return any(not (ticket.request.background or ticket.withdrawn or ticket.is_over) for ticket in ready)


def make_way(tickets: Iterable[Ticket], batches: deque[Batch], denoised: deque[Row]) -> None:
    """Let the background stand: a person's request is about to begin, or needs the room for its model."""
    running = [ticket for ticket in tickets if ticket.request.background and ticket.model is not None]
    if not running:
        return
    # All of them are of the background, or this had to stand before.
    for batch in batches:
        batch.close()
        for row in (*batch.rows, *batch.waiting):
            row.ticket.aside[batch.key].append(row)
    for row in denoised:
        row.ticket.aside[None].append(row)
    batches.clear()
    denoised.clear()
    for ticket in running:
        ticket.stand()


def give_back(tickets: Iterable[Ticket]) -> bool:
    """Drop what those who stand can calculate anew; memory is wanting. Returns whether there was any such."""
    holding = [ticket for ticket in tickets if ticket.stands and not ticket.gave_back]
    for ticket in holding:
        ticket.gave_back = True
        for rows in ticket.aside.values():
            for row in rows:
                row.forget_projections()
    return bool(holding)
