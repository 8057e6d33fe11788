"""avllm.engine.metrics: buckets, step accounting, and snapshots that stand still."""

from __future__ import annotations

import threading

import pytest

from avllm.engine.metrics import EngineMetrics, Histogram, MetricsSnapshot


def test_histogram_puts_a_value_on_a_bound_into_that_bucket() -> None:
    histogram = Histogram((1, 2))
    for value in (0.5, 1, 1.5, 2, 99):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 1]
    assert histogram.snapshot().count == 5
    assert histogram.sum == pytest.approx(104)


def test_observe_step_divides_time_and_tokens() -> None:
    metrics = EngineMetrics()
    metrics.observe_step(40, 32, 8, 0.03, 0.04)
    metrics.observe_step(64, 64, 0, 0.05, 0.05)
    assert (metrics.steps, metrics.decode_steps, metrics.prompt_tokens) == (2, 1, 96)
    assert metrics.decode_call_seconds == pytest.approx(0.08)
    assert metrics.step_overhead_seconds == pytest.approx(0.01)
    assert metrics.batch_size.sum == 104
    assert metrics.step_seconds.snapshot().count == 2


def test_clocks_that_disagree_never_give_negative_overhead() -> None:
    metrics = EngineMetrics()
    metrics.observe_step(1, 0, 1, 0.0201, 0.02)
    assert metrics.step_overhead_seconds == 0


def test_snapshot_does_not_follow_later_writes() -> None:
    metrics = EngineMetrics()
    metrics.count_finished("stop")
    before = metrics.snapshot()
    metrics.count_finished("stop")
    metrics.observe_step(1, 0, 1, 0.01, 0.01)
    metrics.running = 5
    assert before.requests_finished == {"stop": 1}
    assert (before.steps, before.running, before.batch_size.count) == (0, 0, 0)
    assert metrics.snapshot().requests_finished == {"stop": 2}


def test_snapshot_covers_every_public_figure() -> None:
    public = {name for name in vars(EngineMetrics()) if not name.startswith("_")}
    assert public == set(MetricsSnapshot.__struct_fields__)


def test_rejections_from_many_threads_are_all_counted() -> None:
    metrics = EngineMetrics()

    def reject() -> None:
        for _ in range(500):
            metrics.count_rejected("queue_full")

    threads = [threading.Thread(target=reject) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert metrics.requests_rejected == {"queue_full": 4000}
