from visionsuit.engine.batch_sizes import BatchSizes

SIZE = (64, 64, 2, True)
OTHER = (128, 128, 2, True)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_unknown_sizes_go_by_the_estimate() -> None:
    sizes = BatchSizes()
    assert sizes.most(SIZE, 8) == 8
    assert sizes.most(SIZE, 0) == 1


def test_as_many_as_still_pay() -> None:
    sizes = BatchSizes()
    for seconds_of in ({1: 1.0, 2: 1.4, 4: 2.4, 8: 6.4},) * 32:
        for pictures, seconds in seconds_of.items():
            sizes.note_call(SIZE, pictures, seconds)
    assert sizes.most(SIZE, 8) == 4
    assert sizes.most(SIZE, 2) == 2
    assert sizes.most(OTHER, 8) == 8


def test_a_few_calls_say_nothing() -> None:
    sizes = BatchSizes()
    for _ in range(31):
        sizes.note_call(SIZE, 1, 1.0)
        sizes.note_call(SIZE, 8, 80.0)
    assert sizes.most(SIZE, 8) == 8


def test_one_disturbed_call_counts_for_nothing() -> None:
    sizes = BatchSizes()
    for seconds in (*[1.0] * 32, 9.0):
        sizes.note_call(SIZE, 4, 4 * seconds)
        sizes.note_call(SIZE, 8, 8 * (seconds if seconds < 9 else 90.0))
    assert sizes.most(SIZE, 8) == 8


def test_what_did_not_pay_is_tried_again() -> None:
    sizes = BatchSizes()
    for _ in range(32):
        sizes.note_call(SIZE, 4, 4.0)
        sizes.note_call(SIZE, 8, 16.0)
    assert sizes.most(SIZE, 8) == 4
    for _ in range(500):
        sizes.note_call(SIZE, 4, 4.0)
    assert sizes.most(SIZE, 8) == 8


def test_what_memory_did_not_hold_is_halved_for_a_while() -> None:
    clock = Clock()
    sizes = BatchSizes(clock)
    sizes.note_too_many(SIZE, 8)
    assert sizes.most(SIZE, 8) == 4
    sizes.note_too_many(SIZE, 4)
    assert sizes.most(SIZE, 8) == 2
    assert sizes.most(OTHER, 8) == 8
    clock.now = 601.0
    assert sizes.most(SIZE, 8) == 8
