"""Progress and change messages inside the process: publish from any thread, listen from threads or coroutines.

Messages are hints, not facts: the row in the database is the truth, and a listener that falls behind misses some.
A second process would carry the same interface over LISTEN/NOTIFY.
"""

import asyncio
import queue
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

Message = dict[str, Any]
Listener = Callable[[Message], None]


class Bus:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: dict[str, set[Listener]] = defaultdict(set)
        self._latest: dict[str, Message] = {}

    def publish(self, topic: str, message: Message, *, keep: bool = False) -> None:
        """Tell everyone who listens to `topic`. Never blocks: a full listener loses its oldest message.

        `keep` remembers the message as the topic's latest until `forget`.
        """
        with self._lock:
            if keep:
                self._latest[topic] = message
            listeners = list(self._listeners.get(topic, ()))
        for listener in listeners:
            listener(message)

    def latest(self, topic: str) -> Message | None:
        """The message last published with `keep`."""
        with self._lock:
            return self._latest.get(topic)

    def forget(self, topic: str) -> None:
        with self._lock:
            self._latest.pop(topic, None)

    @contextmanager
    def subscribe(self, topic: str, listener: Listener) -> Iterator[None]:
        """Call `listener` for every message from now on, in the publisher's thread: it must be quick and not raise."""
        with self._lock:
            self._listeners[topic].add(listener)
        try:
            yield
        finally:
            with self._lock:
                self._listeners[topic].discard(listener)
                if not self._listeners[topic]:
                    del self._listeners[topic]

    @contextmanager
    def listen(self, topic: str, size: int = 64) -> Iterator["queue.Queue[Message]"]:
        """A queue that receives what is published on `topic` from now on."""
        inbox: queue.Queue[Message] = queue.Queue(size)

        def receive(message: Message) -> None:
            try:
                inbox.put_nowait(message)
            except queue.Full:
                with suppress(queue.Empty):
                    inbox.get_nowait()
                with suppress(queue.Full):
                    inbox.put_nowait(message)

        with self.subscribe(topic, receive):
            yield inbox

    @asynccontextmanager
    async def listen_async(self, topic: str, size: int = 16) -> AsyncIterator["asyncio.Queue[Message]"]:
        """The same for a coroutine: it costs a waiting future, not a thread."""
        loop = asyncio.get_running_loop()
        inbox: asyncio.Queue[Message] = asyncio.Queue(size)

        def receive(message: Message) -> None:
            if inbox.full():
                inbox.get_nowait()
            inbox.put_nowait(message)

        with self.subscribe(topic, lambda message: call_on_loop(loop, receive, message)):
            yield inbox


def call_on_loop(loop: asyncio.AbstractEventLoop, action: Callable[..., None], *args: Any) -> None:
    """From any thread. The loop may be closed already while the server stops; then nobody is left to tell."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(action, *args)
