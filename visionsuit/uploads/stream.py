"""A request body as blocks that a thread reads: the event loop only moves bytes, and never more than a few blocks."""

import asyncio
import contextlib
import queue
from collections.abc import Callable, Iterator
from typing import TypeVar

import anyio.to_thread
from anyio.lowlevel import RunVar
from fastapi import Request
from starlette.requests import ClientDisconnect

from visionsuit.uploads.errors import FileTooLarge, UploadBroken
from visionsuit.uploads.writing import in_words

T = TypeVar("T")

#: Few hand-overs between loop and thread; several of these lie in memory for each upload.
BLOCK_BYTES = 1024 * 1024
_BLOCKS_WAITING = 4
_SILENCE_S = 120.0
#: A refused sender is heard out this far, or it would see a broken connection and not the reason.
_HEARD_OUT_BYTES = 64 * 1024 * 1024
_HEARD_OUT_S = 10.0
#: Threads for uploads are their own, so that slow senders leave the threads of all other routes alone.
_MOST_UPLOADS = 24

_limiter: RunVar[anyio.CapacityLimiter] = RunVar("visionsuit_uploads")


class BodyBlocks:
    """Filled in the event loop, read in one thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: queue.Queue[bytes | UploadBroken | None] = queue.Queue(_BLOCKS_WAITING)
        self._room = asyncio.Event()
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        """
        Raises:
            UploadBroken: the sender went away or fell silent.
        """
        while True:
            try:
                block = self._queue.get(timeout=_SILENCE_S)
            except queue.Empty:
                raise UploadBroken(f"No data arrived for {_SILENCE_S:g} seconds; the upload was given up.") from None
            self._loop.call_soon_threadsafe(self._room.set)
            if block is None:
                return
            if isinstance(block, UploadBroken):
                raise block
            yield block

    def close(self) -> None:
        """In the event loop: nobody reads any more, what still arrives is dropped."""
        self._closed = True
        self._room.set()

    async def fill(self, request: Request) -> None:
        """Move the whole body; after `close` drop it, up to a bound."""
        parts: list[bytes] = []
        size = dropped = 0
        try:
            async for chunk in request.stream():
                if self._closed:
                    dropped += len(chunk)
                    if dropped > _HEARD_OUT_BYTES:
                        return
                    continue
                parts.append(chunk)
                size += len(chunk)
                if size >= BLOCK_BYTES:
                    await self._put(b"".join(parts))
                    parts, size = [], 0
        except ClientDisconnect:
            await self._put(UploadBroken("The connection broke before the whole file had arrived."))
            return
        if parts:
            await self._put(b"".join(parts))
        await self._put(None)

    async def _put(self, item: bytes | UploadBroken | None) -> None:
        while not self._closed:
            try:
                self._queue.put_nowait(item)
                return
            except queue.Full:
                self._room.clear()
                if self._queue.full():
                    await self._room.wait()


def refuse_length(request: Request, most: int) -> None:
    """
    Raises:
        FileTooLarge: the sender says that more than `most` bytes will come.
    """
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > most:
        raise FileTooLarge(f"This upload is {in_words(int(length))}; the limit is {in_words(most)} together.")


async def receive_in_thread(request: Request, work: Callable[[Iterator[bytes]], T]) -> T:
    """Run `work` in a thread with the request's body as blocks. An early end of it is an answer to the sender too."""
    try:
        limiter = _limiter.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(_MOST_UPLOADS)
        _limiter.set(limiter)
    blocks = BodyBlocks()
    filling = asyncio.create_task(blocks.fill(request))
    try:
        return await anyio.to_thread.run_sync(lambda: work(iter(blocks)), limiter=limiter)
    finally:
        blocks.close()
        await asyncio.wait({filling}, timeout=_HEARD_OUT_S)
        filling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await filling
