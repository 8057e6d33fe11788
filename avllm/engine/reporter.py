"""Reporter: tells callers what became of their sequences, and keeps the figures of it.

Knows which sequences of a request are still to end; nothing of scheduling or computing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from avllm.engine.batch_plan import Sampled
from avllm.engine.inbox import Inbox
from avllm.engine.metrics import EngineMetrics
from avllm.engine.request import GenerationRequest, SequenceUpdate
from avllm.engine.sequence import Sequence
from avllm.outputs import FinishReason


class Reporter:
    """Sends updates to the sinks of requests; each sequence has exactly one last update.

    Owned by the engine thread, save for ``add_flusher`` and ``remove_flusher``.

    Args:
        inbox: told when a request leaves the queue and when it has ended.
        metrics: where the figures go.
    """

    def __init__(self, inbox: Inbox, metrics: EngineMetrics) -> None:
        self._inbox = inbox
        self._metrics = metrics
        self._live: dict[int, list[Sequence]] = {}
        self._queued: set[int] = set()  # requests none of whose sequences has run
        self._flushers: dict[object, Callable[[], None]] = {}

    @property
    def is_idle(self) -> bool:
        """True when every accepted request has ended."""
        return not self._live

    def add_flusher(self, key: object, flush: Callable[[], None]) -> None:
        """Call ``flush`` once after each step; sinks use it to wake a consumer once a step."""
        self._flushers[key] = flush

    def remove_flusher(self, key: object) -> None:
        """Undo ``add_flusher``."""
        self._flushers.pop(key, None)

    def flush(self) -> None:
        """Let the sinks deliver what they were given since the last flush."""
        for flush in list(self._flushers.values()):
            flush()

    def accepted(self, request: GenerationRequest, sequences: list[Sequence]) -> None:
        """Take note of a request and its sequences."""
        self._live[request.request_id] = sequences
        self._queued.add(request.request_id)

    def live_sequences(self, request: GenerationRequest | None = None) -> Iterator[Sequence]:
        """Yield the sequences of a request (of all, for None) that have not ended."""
        if request is not None:
            yield from list(self._live.get(request.request_id, ()))
            return
        for sequences in list(self._live.values()):
            yield from list(sequences)

    def admitted(self, sequence: Sequence) -> None:
        """Take note that a sequence runs for the first time."""
        assert sequence.times.first_step is not None
        self._leave_queue(sequence.request)
        self._metrics.cached_tokens += sequence.cached_tokens
        self._metrics.queue_seconds.observe(sequence.times.first_step - sequence.times.arrival)

    def sampled(self, sequence: Sequence) -> None:
        """Take note that a sequence got a token, whatever becomes of it."""
        now = time.perf_counter()
        times, metrics = sequence.times, self._metrics
        metrics.generation_tokens += 1
        if times.first_token is None:
            times.first_token = now
            metrics.ttft_seconds.observe(now - times.arrival)
        elif times.last_token is not None:
            metrics.inter_token_seconds.observe(now - times.last_token)
        times.last_token = now

    def token(self, sequence: Sequence, sampled: Sampled) -> None:
        """Send one token of a sequence that goes on."""
        self._emit(
            sequence,
            SequenceUpdate(
                sequence.index,
                (sampled.token,),
                None if sampled.logprob is None else (sampled.logprob,),
                num_generated=sequence.num_generated,
                cached_tokens=sequence.cached_tokens,
                times=sequence.times,
            ),
        )

    def ended(self, sequence: Sequence, reason: FinishReason, **update: object) -> None:
        """Send the last update of a sequence; ``update`` are further fields of it."""
        request = sequence.request
        live = self._live[request.request_id]
        live.remove(sequence)
        if not live:
            del self._live[request.request_id]
            self._inbox.release(has_ended=True)
            self._leave_queue(request)
        self._metrics.count_finished(reason)
        self._metrics.e2e_seconds.observe(time.perf_counter() - request.arrival)
        self._emit(
            sequence,
            SequenceUpdate(
                sequence.index,
                finish_reason=reason,
                num_generated=sequence.num_generated,
                cached_tokens=sequence.cached_tokens,
                times=sequence.times,
                **update,  # type: ignore[arg-type]
            ),
        )

    def _leave_queue(self, request: GenerationRequest) -> None:
        if request.request_id in self._queued:
            self._queued.discard(request.request_id)
            self._inbox.leave_queue(request)

    @staticmethod
    def _emit(sequence: Sequence, update: SequenceUpdate) -> None:
        sequence.request.sink(sequence.request, update)
