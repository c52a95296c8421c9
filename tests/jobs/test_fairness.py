"""Whose turn it is, as a pure rule."""

from datetime import UTC, datetime, timedelta

from visionsuit.jobs.fairness import AFFINITY_SLACK_S, HALF_LIFE_S, STARVATION_S, Candidate, choose, faded

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def candidate(
    job_id: int, share_s: float = 0, *, waits_s: float = 0, priority: int = 0, affinity: str = ""
) -> Candidate:
    return Candidate(job_id, priority, share_s, NOW - timedelta(seconds=waits_s), affinity)


def test_whoever_used_less_goes_first() -> None:
    assert choose([candidate(1, 30), candidate(2, 5)], NOW).job_id == 2


def test_equal_shares_go_in_order_of_arrival() -> None:
    assert choose([candidate(2, 5), candidate(1, 5)], NOW).job_id == 1


def test_priority_goes_before_share() -> None:
    assert choose([candidate(1, 0), candidate(2, 500, priority=1)], NOW).job_id == 2


def test_nobody_waits_longer_than_the_bound_for_others() -> None:
    starving = candidate(1, 10_000, waits_s=STARVATION_S + 1)
    assert choose([starving, candidate(2, 0)], NOW).job_id == 1


def test_who_waits_long_passes_nobody_of_a_higher_priority() -> None:
    starving = candidate(1, waits_s=STARVATION_S + 50)
    assert choose([starving, candidate(2, 0, priority=1)], NOW).job_id == 2
    test_sheet = candidate(3, waits_s=STARVATION_S + 99, priority=-10)
    assert choose([test_sheet, candidate(4, 500)], NOW).job_id == 4
    assert choose([test_sheet, candidate(4, 500), starving], NOW).job_id == 1


def test_among_the_starving_the_longest_waiting_goes_first() -> None:
    first = candidate(5, waits_s=STARVATION_S + 50)
    assert choose([candidate(1, waits_s=STARVATION_S + 10), first], NOW).job_id == 5


def test_what_is_loaded_goes_first_only_within_the_slack() -> None:
    best = candidate(1, 0, affinity="other")
    assert choose([best, candidate(2, AFFINITY_SLACK_S - 1, affinity="here")], NOW, loaded="here").job_id == 2
    assert choose([best, candidate(2, AFFINITY_SLACK_S + 1, affinity="here")], NOW, loaded="here").job_id == 1


def test_shares_fade() -> None:
    assert faded(100, NOW - timedelta(seconds=HALF_LIFE_S), NOW) == 50
    assert faded(100, NOW + timedelta(seconds=5), NOW) == 100  # a clock that went back charges nobody more


def test_two_people_get_equal_device_time_whatever_the_length_of_their_jobs() -> None:
    """One asks for 10 s renders, the other for 1 s renders; both always have work waiting."""
    used = {"long": 0.0, "short": 0.0}
    cost = {"long": 10.0, "short": 1.0}
    for turn in range(220):
        waiting = [candidate(2 * turn, used["long"]), candidate(2 * turn + 1, used["short"])]
        chosen = "long" if choose(waiting, NOW).job_id % 2 == 0 else "short"
        used[chosen] += cost[chosen]
    assert abs(used["long"] - used["short"]) <= 10
