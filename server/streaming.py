"""Deltas of the engine to the client: batches, server-sent events, disconnects, silence.

Knows no dialect: an `EventEncoder` turns deltas into bytes. A server tells of a client that went
away through ``receive()`` alone (``send()`` succeeds for ever), so both ways out of here,
`EventStream` and `collect`, watch it beside the engine and cancel what nobody waits for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import anyio
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from avllm.errors import DecodeError, EngineStoppedError
from avllm.outputs import FinishReason, RequestOutput, TextDelta

from .config import ServerConfig
from .errors import error_kind

if TYPE_CHECKING:
    from avllm.engine.async_engine import AsyncRequest

logger = logging.getLogger("avllm.server")

PING = b": ping\n\n"
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # or nginx collects the events
]
# (number of the request, delta of it)
NumberedDelta = tuple[int, TextDelta]


class EventEncoder(Protocol):
    """What a dialect says in a stream, as ready frames."""

    def start(self) -> bytes:
        """Return what comes before the first delta."""

    def deltas(self, batch: Sequence[NumberedDelta]) -> bytes:
        """Return the frames of deltas that are sent together."""

    def end(self) -> bytes:
        """Return what comes after the last delta."""

    def error(self, exc: Exception) -> bytes:
        """Return the frame that tells of a failure; nothing follows it."""


def check_finish_reason(reason: FinishReason | None) -> None:
    """Raise the error that a finish reason stands for, if it stands for one."""
    if reason == "abort":
        raise EngineStoppedError("The request was ended before it was complete.")
    if reason == "error":
        raise DecodeError("The engine could not go on with this request.")


class DeltaFeed:
    """Deltas of several requests as they come; those that wait together are taken together."""

    def __init__(self, requests: Sequence[AsyncRequest]) -> None:
        self._requests = requests
        self._deltas: list[NumberedDelta] = []
        self._error: Exception | None = None
        self._num_open = len(requests)
        self._changed = asyncio.Event()
        self._pumps = [
            asyncio.create_task(self._pump(number, request))
            for number, request in enumerate(requests)
        ]

    async def take(self) -> list[NumberedDelta]:
        """Wait for deltas and return all that are there; an empty list is the end.

        Raises:
            ClientDisconnect: the feed was closed.
            Exception: what a request failed with, after the deltas that came before it.
        """
        while not self._deltas:
            if self._error is not None:
                raise self._error
            if not self._num_open:
                return []
            self._changed.clear()
            await self._changed.wait()
        deltas, self._deltas = self._deltas, []
        return deltas

    def close(self) -> None:
        """Cancel what still runs. Idempotent."""
        if self._num_open and self._error is None:
            self._error = ClientDisconnect()
        for request in self._requests:
            request.cancel()
        for pump in self._pumps:
            pump.cancel()
        self._changed.set()

    async def _pump(self, number: int, request: AsyncRequest) -> None:
        try:
            async for delta in request:
                check_finish_reason(delta.finish_reason)
                self._deltas.append((number, delta))
                self._changed.set()
        except Exception as exc:
            self._error = self._error or exc
        finally:
            self._num_open -= 1
            self._changed.set()


class EventStream:
    """A response of server-sent events, as an ASGI callable.

    The status line waits for the first delta (or ping), so that a request which fails in the
    queue still gets its proper status.
    """

    def __init__(
        self, requests: Sequence[AsyncRequest], encoder: EventEncoder, config: ServerConfig
    ) -> None:
        self._requests = requests
        self._encoder = encoder
        self._config = config
        self._is_started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        feed = DeltaFeed(self._requests)
        watcher = asyncio.create_task(_on_disconnect(receive, feed.close))
        try:
            await self._run(feed, send)
        finally:
            watcher.cancel()
            feed.close()

    async def _run(self, feed: DeltaFeed, send: Send) -> None:
        try:
            while batch := await self._take(feed, send):
                await self._send(send, self._encoder.deltas(batch))
            await self._send(send, self._encoder.end(), more=False)
        except ClientDisconnect:
            raise
        except Exception as exc:
            if not self._is_started:
                raise
            if error_kind(exc).code == "internal_error":
                logger.exception("A stream failed")
            await self._send(send, self._encoder.error(exc), more=False)

    async def _take(self, feed: DeltaFeed, send: Send) -> list[NumberedDelta]:
        while True:
            with anyio.move_on_after(self._config.ping_seconds):
                return await feed.take()
            await self._send(send, PING)

    async def _send(self, send: Send, body: bytes, *, more: bool = True) -> None:
        if not body and more:
            return
        if not self._is_started:
            self._is_started = True
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            body = self._encoder.start() + body
        try:
            with anyio.fail_after(self._config.send_timeout_seconds):
                await send({"type": "http.response.body", "body": body, "more_body": more})
        except TimeoutError:
            raise ClientDisconnect from None  # it stopped reading; there is nobody to tell


async def collect(requests: Sequence[AsyncRequest], receive: Receive) -> list[RequestOutput]:
    """Return the outputs of all `requests`, in their order.

    Raises:
        ClientDisconnect: the client went away; the requests were cancelled.
        Exception: what a request failed with; the others were cancelled.
    """
    work = asyncio.gather(*(request.result() for request in requests))
    watcher = asyncio.create_task(_on_disconnect(receive, work.cancel))
    try:
        outputs = await work
    except asyncio.CancelledError:
        if watcher.done() and not watcher.cancelled():
            raise ClientDisconnect from None
        raise
    finally:
        watcher.cancel()
        for request in requests:
            request.cancel()
    for output in outputs:
        for sequence in output.outputs:
            check_finish_reason(sequence.finish_reason)
    return outputs


async def _on_disconnect(receive: Receive, callback: Callable[[], object]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    callback()
