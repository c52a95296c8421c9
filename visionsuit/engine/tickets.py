"""One call of `render` as the calling thread and the device thread see it. No torch."""

import threading
from collections import defaultdict, deque
from collections.abc import Callable
from itertools import count
from typing import Any

from visionsuit.engine.base import Phase, Picture, Progress, RenderRequest

_numbers = count()


class CalledOff(Exception):
    """A picture that is rendered whole in the background is left for people; it begins anew."""


class Ticket:
    """The device thread tells, the calling thread takes.

    Attributes:
        number: order of arrival.
        model: the loaded base model, once the device thread provided it; it stays loaded until the ticket is over, or
            stands.
        packs: the LoRAs of the request by SHA-256, once the calling thread read them.
        encoding: what is made of its prompts, while they are encoded in turns.
        withdrawn: the caller gave up; its rows leave before the next step.
        stands: it is in the background, and people render.
        aside: its rows meanwhile, by the key of their batch; by None those that are denoised.
        gave_back: what it held beside them for speed is gone.
        called_off: whether its picture, if it is rendered whole, is to be left now.
    """

    def __init__(self, request: RenderRequest) -> None:
        self.request = request
        self.number = next(_numbers)
        self.model: Any = None
        self.packs: dict[str, Any] | None = None
        self.admitted = False
        self.encoding: Any = None
        self.withdrawn = False
        self.stands = False
        self.aside: defaultdict[Any, list[Any]] = defaultdict(list)
        self.gave_back = False
        self.called_off: Callable[[], bool] = bool
        self._pictures: dict[int, Picture] = {}
        self._steps_done = [0] * len(request.seeds)
        self._news = threading.Condition()
        self._unread: deque[Progress] = deque()
        self._error: BaseException | None = None

    # Device thread

    def phase(self, phase: Phase) -> None:
        self._tell(Progress(phase, sum(self._steps_done), self._total))

    def step(self, row: int, done: int, preview: Any = None) -> None:
        """Picture number `row` has `done` of the request's steps behind it."""
        self._steps_done[row] = done
        self._tell(Progress(Phase.DENOISING, sum(self._steps_done), self._total, preview))

    def deliver(self, row: int, picture: Picture) -> None:
        with self._news:
            self._pictures[row] = picture
            self._news.notify_all()

    def fail(self, error: BaseException) -> None:
        with self._news:
            if not self.is_over:
                self._error = error
                self._news.notify_all()

    def provide(self, model: Any) -> None:
        with self._news:
            self.model = model
            self._news.notify_all()

    def stand(self) -> None:
        """Until `go_on`, without its model and its places."""
        self.model, self.admitted = None, False
        if not self.stands:
            self.stands, self.gave_back = True, False
            self.phase(Phase.WAITING)

    def go_on(self) -> None:
        if self.stands:
            self.stands = False
            self.phase(Phase.DENOISING if any(self._steps_done) else Phase.LOADING)

    def leads(self, row: int) -> bool:
        """Whether all pictures before this one have their steps."""
        return all(done == self.request.steps_run for done in self._steps_done[:row])

    @property
    def pictures(self) -> int:
        """How many are delivered."""
        return len(self._pictures)

    @property
    def is_denoised(self) -> bool:
        """Whether all pictures have all their steps."""
        return sum(self._steps_done) == self._total

    @property
    def is_over(self) -> bool:
        return self._error is not None or len(self._pictures) == len(self.request.seeds)

    # Calling thread

    def take(self, timeout_s: float) -> list[Progress]:
        """What was told since the last call; waits for something to happen."""
        with self._news:
            if not self._unread and not self.is_over and (self.model is None or self.packs is not None):
                self._news.wait(timeout_s)
            told = list(self._unread)
            self._unread.clear()
            return told

    def result(self) -> list[Picture] | None:
        """All pictures in the order of the seeds, None while some are missing.

        Raises:
            what the ticket failed with.
        """
        with self._news:
            if self._error is not None:
                raise self._error
            if len(self._pictures) < len(self.request.seeds):
                return None
            return [self._pictures[number] for number in range(len(self.request.seeds))]

    @property
    def _total(self) -> int:
        return self.request.steps_run * len(self.request.seeds)

    def _tell(self, progress: Progress) -> None:
        with self._news:
            if self._unread and self._unread[-1].phase is progress.phase is Phase.DENOISING:
                # A caller that is slower than the device gets the latest, and does not fall behind.
                last = self._unread.pop()
                preview = last.preview if progress.preview is None else progress.preview
                progress = Progress(progress.phase, progress.step, progress.steps, preview)
            self._unread.append(progress)
            self._news.notify_all()
