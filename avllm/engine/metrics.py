"""Counters, gauges and histograms of one engine.

Owns the figures; knows neither HTTP nor Prometheus. The engine thread is the only writer, except
for `EngineMetrics.count_rejected`, which any thread may call. Readers on other threads take a
`snapshot`: it may fall between two writes of one step, never inside one number.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from typing import Any

import msgspec

# Upper bounds, inclusive. Latencies in seconds, from one fast token to the longest wait in a queue.
LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
STEP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
ROW_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)


class HistogramSnapshot(msgspec.Struct, frozen=True):
    """A histogram at one moment.

    Attributes:
        bounds: upper bounds of the buckets, inclusive, ascending.
        counts: observations of each bucket alone; one more than ``bounds`` for what lies above.
        sum: sum of all observed values.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float

    @property
    def count(self) -> int:
        """Number of observations."""
        return sum(self.counts)


class Histogram:
    """Observations in fixed buckets. One writer thread, no lock."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value; a value equal to a bound belongs to that bound's bucket."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def snapshot(self) -> HistogramSnapshot:
        """Return a copy that later observations do not change."""
        return HistogramSnapshot(self.bounds, tuple(self.counts), self.sum)


class MetricsSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Every figure of an engine at one moment; the attributes are those of `EngineMetrics`."""

    steps: int
    decode_steps: int
    prompt_tokens: int
    cached_tokens: int
    generation_tokens: int
    preemptions: int
    requests_finished: dict[str, int]
    requests_rejected: dict[str, int]
    running: int
    waiting: int
    parked: int
    kv_cells_used: int
    kv_cells_cached: int
    kv_cells_total: int
    decode_call_seconds: float
    step_overhead_seconds: float
    ttft_seconds: HistogramSnapshot
    inter_token_seconds: HistogramSnapshot
    e2e_seconds: HistogramSnapshot
    queue_seconds: HistogramSnapshot
    step_seconds: HistogramSnapshot
    batch_size: HistogramSnapshot


class EngineMetrics:
    """What an engine has done and is doing; the engine thread writes the attributes directly.

    Attributes:
        steps: steps computed.
        decode_steps: steps that held at least one decode row.
        prompt_tokens: prompt tokens computed, recomputed ones included.
        cached_tokens: prompt tokens that were found in the KV cache and not computed.
        generation_tokens: tokens sampled.
        preemptions: sequences that lost their cells and had to be restored or recomputed.
        requests_finished: finished sequences by finish reason; a request has n of them.
        requests_rejected: refused requests by error code.
        running, waiting, parked: sequences in each state.
        kv_cells_used: cells that running sequences hold.
        kv_cells_cached: cells of finished sequences, kept until they are needed.
        kv_cells_total: cells of the pool.
        decode_call_seconds: time inside ``llama_decode``, summed.
        step_overhead_seconds: time of the steps outside of it, summed.
        ttft_seconds: from submission to the first token.
        inter_token_seconds: between two tokens of one sequence.
        e2e_seconds: from submission to the end of a sequence.
        queue_seconds: from submission to the first step that computed some of the request.
        step_seconds: duration of a step.
        batch_size: rows (tokens) of a step.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.decode_steps = 0
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.generation_tokens = 0
        self.preemptions = 0
        self.requests_finished: dict[str, int] = {}
        self.requests_rejected: dict[str, int] = {}
        self.running = 0
        self.waiting = 0
        self.parked = 0
        self.kv_cells_used = 0
        self.kv_cells_cached = 0
        self.kv_cells_total = 0
        self.decode_call_seconds = 0.0
        self.step_overhead_seconds = 0.0
        self.ttft_seconds = Histogram(LATENCY_BUCKETS)
        self.inter_token_seconds = Histogram(LATENCY_BUCKETS)
        self.e2e_seconds = Histogram(LATENCY_BUCKETS)
        self.queue_seconds = Histogram(LATENCY_BUCKETS)
        self.step_seconds = Histogram(STEP_BUCKETS)
        self.batch_size = Histogram(ROW_BUCKETS)
        self._rejected_lock = threading.Lock()

    def observe_step(
        self,
        rows: int,
        prefill_tokens: int,
        decode_tokens: int,
        decode_call_seconds: float,
        step_seconds: float,
    ) -> None:
        """Count one step.

        Args:
            rows: tokens of the batch, prompts and decodes together.
            prefill_tokens: those of them that belong to prompts; added to ``prompt_tokens``.
            decode_tokens: those of them that continue a running sequence.
            decode_call_seconds: time inside ``llama_decode``.
            step_seconds: time of the whole step.
        """
        self.steps += 1
        self.decode_steps += decode_tokens > 0
        self.prompt_tokens += prefill_tokens
        self.decode_call_seconds += decode_call_seconds
        self.step_overhead_seconds += max(0.0, step_seconds - decode_call_seconds)
        self.step_seconds.observe(step_seconds)
        self.batch_size.observe(rows)

    def count_finished(self, reason: str) -> None:
        """Count a finished sequence. Engine thread only."""
        self.requests_finished[reason] = self.requests_finished.get(reason, 0) + 1

    def count_rejected(self, reason: str) -> None:
        """Count a refused request. Any thread."""
        with self._rejected_lock:
            self.requests_rejected[reason] = self.requests_rejected.get(reason, 0) + 1

    def snapshot(self) -> MetricsSnapshot:
        """Return a copy of every figure. Any thread."""
        values: dict[str, Any] = {
            name: _copy(getattr(self, name)) for name in MetricsSnapshot.__struct_fields__
        }
        return MetricsSnapshot(**values)


def _copy(value: object) -> object:
    if isinstance(value, Histogram):
        return value.snapshot()
    return dict(value) if isinstance(value, dict) else value
