"""Inbox: how other threads reach the engine thread, and the bound on what may wait."""

from __future__ import annotations

import threading
import time
from collections import deque

from avllm.engine.request import Cancellation, GenerationRequest
from avllm.errors import EngineOverloadedError, EngineStoppedError

# Throughput is that of the latest requests to end.
_WINDOW = 32
_MIN_RETRY_SECONDS = 1.0
_MAX_RETRY_SECONDS = 120.0


class Inbox:
    """Messages to the engine thread, and the count of live requests and waiting prompt tokens.

    Thread-safe. A request is live from ``reserve`` until ``release``, and its prompt waits until
    ``leave_queue``.

    Args:
        max_requests: requests that may be live: those that can run and those that may wait.
        max_tokens: prompt tokens that may wait in total; a single prompt may exceed it when no
            other waits.
    """

    def __init__(self, max_requests: int, max_tokens: int) -> None:
        self._max_requests = max_requests
        self._max_tokens = max_tokens
        self._messages: deque[GenerationRequest | Cancellation] = deque()
        self._condition = threading.Condition()
        self._closed_by: str | None = None
        self.num_requests = 0
        self.num_waiting = 0
        self.num_tokens = 0
        # When the latest requests ended, after the moment from which there was work without pause.
        self._ends: deque[float] = deque(maxlen=_WINDOW + 1)
        self._seconds_per_request = 0.5  # when the latest ended; at first a guess
        self._num_refused = 0  # refused callers who were told of a place that is not free yet

    def reserve(self) -> None:
        """Take a place for a request, before anything of it is worked on.

        Raises:
            EngineOverloadedError: there is none.
            EngineStoppedError: the engine takes no more.
        """
        with self._condition:
            if self._closed_by is not None:
                raise EngineStoppedError(self._closed_by)
            if self.num_requests >= self._max_requests:
                raise self._overloaded(f"{self.num_requests} requests are running or waiting")
            if self.num_requests == 0:
                self._begin_work()
            self.num_requests += 1

    def release(self, *, has_ended: bool = False) -> None:
        """Give the place of a request back; ``has_ended`` when the engine is done with it."""
        with self._condition:
            self.num_requests -= 1
            if has_ended:
                self._ends.append(time.monotonic())
                self._seconds_per_request = self._pace()
                self._num_refused = max(0, self._num_refused - 1)

    def submit(self, request: GenerationRequest) -> None:
        """Send a request for which a place was reserved.

        Raises:
            EngineOverloadedError: too many prompt tokens wait already.
            EngineStoppedError: the engine takes no more.
        """
        tokens = len(request.prompt_token_ids)
        with self._condition:
            if self._closed_by is not None:
                raise EngineStoppedError(self._closed_by)
            excess = self.num_tokens + tokens - self._max_tokens
            if self.num_waiting and excess > 0:
                per_request = self.num_tokens / self.num_waiting
                raise self._overloaded(
                    f"{self.num_tokens} prompt tokens are waiting", excess / per_request
                )
            self.num_waiting += 1
            self.num_tokens += tokens
            self._messages.append(request)
            self._condition.notify()

    def cancel(self, cancellation: Cancellation) -> None:
        """Send a cancellation; it is never refused."""
        with self._condition:
            self._messages.append(cancellation)
            self._condition.notify()

    def leave_queue(self, request: GenerationRequest) -> None:
        """Count a request's prompt as no longer waiting: it runs or was given up."""
        with self._condition:
            self.num_waiting -= 1
            self.num_tokens -= len(request.prompt_token_ids)

    def drain(self, wait_seconds: float) -> list[GenerationRequest | Cancellation]:
        """Return all messages. Engine thread.

        Waits up to ``wait_seconds`` for the first, unless the inbox is closed.
        """
        with self._condition:
            if not self._messages and wait_seconds > 0 and self._closed_by is None:
                self._condition.wait(wait_seconds)
            messages = list(self._messages)
            self._messages.clear()
            return messages

    def close(self, reason: str) -> None:
        """Refuse every further request with ``reason``; what was sent stays to be drained."""
        with self._condition:
            if self._closed_by is None:
                self._closed_by = reason
            self._condition.notify()

    @property
    def is_empty(self) -> bool:
        """True when no message waits to be drained."""
        return not self._messages

    def retry_after(self, places: float = 1.0) -> float:
        """Return the seconds after which a refused caller will find ``places`` free."""
        with self._condition:
            # Those refused earlier were told of the places that become free first.
            seconds = (self._num_refused + places) * self._pace()
            self._num_refused += 1
            return min(max(seconds, _MIN_RETRY_SECONDS), _MAX_RETRY_SECONDS)

    def _begin_work(self) -> None:
        # Idle time says nothing about throughput: it is measured from here on.
        self._ends.clear()
        self._ends.append(time.monotonic())
        self._num_refused = 0

    def _pace(self) -> float:
        # Seconds after which, on average, one more request ends and frees its place.
        num_ended = len(self._ends) - 1
        if num_ended < 1:
            return self._seconds_per_request
        return (time.monotonic() - self._ends[0]) / num_ended

    def _overloaded(self, why: str, places: float = 1.0) -> EngineOverloadedError:
        seconds = self.retry_after(places)
        return EngineOverloadedError(
            f"The queue is full: {why}. Try again in about {seconds:.0f} s.", retry_after=seconds
        )
