"""Whose turn it is. Pure functions over plain data; the queue and the forecast both decide by `choose`.

The person who used the least of the device lately goes first: every claim charges the estimated device seconds to
its owner, the end of the job corrects the charge to what was measured, and charges fade with HALF_LIFE_S. So five
short renders weigh as much as one long one, and a heavy afternoon is forgiven by the evening. Two bounds keep it
honest: whoever was not served for STARVATION_S goes next whatever others' share, the longest-waiting first; and work
that fits what is loaded may jump ahead only within AFFINITY_SLACK_S of the best share.

All this is among jobs of the highest priority that waits. Requests have the same one, so the bounds hold between
people; what administrators put first goes before all of them, and what is of a lower priority (a test sheet) waits
until nobody else does, however long that is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

HALF_LIFE_S = 600.0
STARVATION_S = 180.0
AFFINITY_SLACK_S = 10.0
#: Charged for work nobody has measured yet.
UNKNOWN_COST_S = 10.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A person's next job. `share_s`: faded device seconds; `waits_since`: when they were served last, or queued."""

    job_id: int
    priority: int
    share_s: float
    waits_since: datetime
    affinity: str = ""


def faded(used_s: float, used_at: datetime, now: datetime) -> float:
    """Device seconds that still count at `now`."""
    age_s = max(0.0, (now - used_at).total_seconds())
    return float(used_s * 0.5 ** (age_s / HALF_LIFE_S))


def choose(candidates: Sequence[Candidate], now: datetime, *, loaded: str = "") -> Candidate:
    """The job that runs next. `loaded` is the affinity of what the worker ran last."""
    highest = max(c.priority for c in candidates)
    candidates = [c for c in candidates if c.priority == highest]
    starving = [c for c in candidates if (now - c.waits_since).total_seconds() > STARVATION_S]
    if starving:
        return min(starving, key=lambda c: (c.waits_since, c.job_id))
    best = min(candidates, key=lambda c: (c.share_s, c.job_id))
    if not loaded or best.affinity == loaded:
        return best
    fitting = [c for c in candidates if c.affinity == loaded and c.share_s - best.share_s <= AFFINITY_SLACK_S]
    return min(fitting, key=lambda c: (c.share_s, c.job_id)) if fitting else best
