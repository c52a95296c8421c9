"""What the queue says on the bus: work waits, a job moved, a job is to stop. Hints; rows are the truth."""

import time
from typing import Any

from visionsuit.bus import Bus, Message
from visionsuit.runtime import Ctx


def queue_topic(queue: str) -> str:
    """Something about this queue changed: work came, or it was paused or resumed. `{"ended": True}`: only that a job is
    over, which matters to those who wait for a place."""
    return f"queue:{queue}"


def job_topic(public_id: str) -> str:
    """Progress and changes of one job."""
    return f"job:{public_id}"


def cancel_topic(queue: str) -> str:
    """`{"job": public id}`: a running job is to stop."""
    return f"cancel:{queue}"


def forecast_topic(queue: str) -> str:
    """The latest forecast of a queue, kept for a moment."""
    return f"forecast:{queue}"


def remember(bus: Bus, topic: str, value: Any) -> None:
    """Keep what was read from the database, for `recall`; until `bus.forget(topic)` at the latest."""
    bus.publish(topic, {"value": value, "at": time.monotonic()}, keep=True)


def recall(bus: Bus, topic: str, within_s: float) -> Any:
    """What was remembered in the last `within_s`, else None."""
    kept = bus.latest(topic)
    return kept["value"] if kept is not None and time.monotonic() - kept["at"] < within_s else None


def tell_queue(ctx: Ctx, queue: str, *, ended: bool = False) -> None:
    ctx.after_commit(lambda: ctx.bus.publish(queue_topic(queue), {"ended": True} if ended else {}))


def tell_job(ctx: Ctx, public_id: str, state: str | None = None) -> None:
    """The job's row changed, to `state` if that is known: listeners read it again."""
    message = {"kind": "changed"} if state is None else {"kind": "changed", "state": state}
    ctx.after_commit(lambda: ctx.bus.publish(job_topic(public_id), message))


def publish_progress(bus: Bus, public_id: str, message: Message) -> None:
    """A step was made; kept as the job's latest word for those who ask later."""
    bus.publish(job_topic(public_id), {"kind": "progress", **message}, keep=True)


def latest_progress(bus: Bus, public_id: str) -> Message | None:
    return bus.latest(job_topic(public_id))


def forget_progress(bus: Bus, public_id: str) -> None:
    bus.forget(job_topic(public_id))
