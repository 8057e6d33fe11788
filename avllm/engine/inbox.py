"""Inbox: how other threads reach the engine thread, and the bound on what may wait."""

from __future__ import annotations

import threading
from collections import deque

from avllm.engine.request import Cancellation, GenerationRequest
from avllm.errors import EngineOverloadedError, EngineStoppedError


class Inbox:
    """Messages to the engine thread, and the count of live requests and waiting prompt tokens.

    Thread-safe. A request is live from ``reserve`` until ``release``, and its prompt waits until
    ``leave_queue``.

    Args:
        max_requests: requests that may be live: those that can run and those that may wait.
        max_tokens: prompt tokens that may wait in total.
    """

    def __init__(self, max_requests: int, max_tokens: int) -> None:
        self._max_requests = max_requests
        self._max_tokens = max_tokens
        self._messages: deque[GenerationRequest | Cancellation] = deque()
        self._condition = threading.Condition()
        self._closed_by: str | None = None
        self.num_requests = 0
        self.num_tokens = 0
        self.seconds_per_request = 0.5  # the engine keeps it current, for Retry-After

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
            self.num_requests += 1

    def release(self) -> None:
        """Give the place of a request back."""
        with self._condition:
            self.num_requests -= 1

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
            if self.num_tokens and self.num_tokens + tokens > self._max_tokens:
                raise self._overloaded(f"{self.num_tokens} prompt tokens are waiting")
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
            self.num_tokens -= len(request.prompt_token_ids)

    def drain(self, wait_seconds: float) -> list[GenerationRequest | Cancellation]:
        """Return all messages, waiting up to ``wait_seconds`` for the first. Engine thread."""
        with self._condition:
            if not self._messages and wait_seconds > 0:
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

    def wake(self) -> None:
        """Make a waiting ``drain`` return."""
        with self._condition:
            self._condition.notify()

    def _overloaded(self, why: str) -> EngineOverloadedError:
        seconds = min(max(self.num_requests * self.seconds_per_request, 1.0), 120.0)
        return EngineOverloadedError(
            f"The queue is full: {why}. Try again in about {seconds:.0f} s.", retry_after=seconds
        )
