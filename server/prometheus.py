"""``GET /metrics``: the engine's figures in Prometheus' text format, read at scrape time."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from avllm.engine.metrics import HistogramSnapshot, MetricsSnapshot

from .state import ServerState

# attribute of MetricsSnapshot: help text
_COUNTERS = {
    "steps": "Steps computed.",
    "decode_steps": "Steps that held at least one decode row.",
    "prompt_tokens": "Prompt tokens computed.",
    "cached_tokens": "Prompt tokens found in the KV cache.",
    "generation_tokens": "Tokens sampled.",
    "preemptions": "Sequences that lost their cells for a while.",
    "decode_call_seconds": "Time inside llama_decode.",
    "step_overhead_seconds": "Time of the steps outside llama_decode.",
}
_LABELLED_COUNTERS = {
    "requests_finished": "Finished sequences by finish reason; a request has n of them.",
    "requests_rejected": "Refused requests by error code.",
}
_GAUGES = {
    "running": "Sequences in the batch.",
    "waiting": "Sequences that wait for their first step.",
    "parked": "Sequences that wait for cells to go on.",
    "kv_cells_used": "KV cells of running sequences.",
    "kv_cells_cached": "KV cells kept for later prompts.",
    "kv_cells_total": "KV cells of the pool.",
}
_HISTOGRAMS = {
    "ttft_seconds": "From submission to the first token.",
    "inter_token_seconds": "Between two tokens of a sequence.",
    "e2e_seconds": "From submission to the end.",
    "queue_seconds": "From submission to the first step.",
    "step_seconds": "Duration of a step.",
    "batch_size": "Rows (tokens) of a step.",
}


def metrics_routes(state: ServerState) -> list[BaseRoute]:
    """Return the route of the metrics; while the model loads they are only ``avllm_up 0``."""
    registry = CollectorRegistry()
    registry.register(EngineCollector(state))

    async def metrics(request: Request) -> Response:
        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return [Route("/metrics", metrics)]


class EngineCollector(Collector):
    """Reads one snapshot of the engine's metrics per scrape; costs nothing between scrapes."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        """Yield every metric family."""
        has_engine = self._state.has_engine
        yield GaugeMetricFamily("avllm_up", "1 once the model is loaded.", value=int(has_engine))
        if has_engine:
            yield from _families(self._state.engine.metrics.snapshot())


def _families(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    for name, text in _COUNTERS.items():
        yield CounterMetricFamily(f"avllm_{name}", text, value=getattr(snapshot, name))
    for name, text in _LABELLED_COUNTERS.items():
        family = CounterMetricFamily(f"avllm_{name}", text, labels=["reason"])
        for reason, count in getattr(snapshot, name).items():
            family.add_metric([reason], count)
        yield family
    for name, text in _GAUGES.items():
        yield GaugeMetricFamily(f"avllm_{name}", text, value=getattr(snapshot, name))
    for name, text in _HISTOGRAMS.items():
        yield _histogram(f"avllm_{name}", text, getattr(snapshot, name))


def _histogram(name: str, text: str, histogram: HistogramSnapshot) -> HistogramMetricFamily:
    buckets: list[tuple[str, float]] = []
    total = 0
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        total += count
        label = "+Inf" if bound == float("inf") else repr(float(bound))
        buckets.append((label, total))
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=histogram.sum)
