"""Progress and change messages inside the process: publish from any thread, listen from threads or coroutines.

Messages are hints, not facts: the row in the database is the truth, and a listener that falls behind misses some.
A second process would carry the same interface over LISTEN/NOTIFY.
"""

import queue
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

Message = dict[str, Any]


class Bus:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: dict[str, set[queue.Queue[Message]]] = defaultdict(set)

    def publish(self, topic: str, message: Message) -> None:
        """Tell everyone who listens to `topic`. Never blocks: a full listener loses its oldest message."""
        with self._lock:
            listeners = list(self._listeners.get(topic, ()))
        for inbox in listeners:
            try:
                inbox.put_nowait(message)
            except queue.Full:
                try:
                    inbox.get_nowait()
                except queue.Empty:
                    pass
                inbox.put_nowait(message)

    @contextmanager
    def listen(self, topic: str, size: int = 64) -> Iterator["queue.Queue[Message]"]:
        """A queue that receives what is published on `topic` from now on."""
        inbox: queue.Queue[Message] = queue.Queue(size)
        with self._lock:
            self._listeners[topic].add(inbox)
        try:
            yield inbox
        finally:
            with self._lock:
                self._listeners[topic].discard(inbox)
                if not self._listeners[topic]:
                    del self._listeners[topic]
