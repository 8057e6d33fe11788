"""EngineCore without its thread: cancels, deadlines and faults, each in every state."""

from __future__ import annotations

from array import array
from collections.abc import Callable

import pytest
from fakes import FakeVocab, Fault

from avllm.engine.sequence import SequenceStatus
from avllm.errors import (
    DeadlineExceededError,
    DecodeError,
    EngineError,
    QueueTimeoutError,
)

from .harness import Harness, Job


def waiting() -> tuple[Harness, Job]:
    """Return a request behind others in the queue."""
    harness = Harness(max_num_seqs=1)
    harness.add([1] * 20, max_tokens=50)
    job = harness.add([2] * 20, max_tokens=50)
    harness.turn(2)
    return harness, job


def prefilling() -> tuple[Harness, Job]:
    """Return a request with half its prompt computed."""
    harness = Harness(chunk=10)
    job = harness.add([1] * 100, max_tokens=50)
    harness.turn(5)
    return harness, job


def decoding() -> tuple[Harness, Job]:
    """Return a request that generates."""
    harness = Harness()
    job = harness.add([1] * 20, max_tokens=50)
    harness.turn(5)
    return harness, job


def parked() -> tuple[Harness, Job]:
    """Return a request that gave way, beside one that runs on."""
    harness = Harness(256, max_num_seqs=2)
    harness.add([1] * 60, max_tokens=150)
    job = harness.add([2] * 60, max_tokens=150)
    while not harness.scheduler.parked:
        harness.turn()
    return harness, job


STATES = [
    (waiting, SequenceStatus.WAITING),
    (prefilling, SequenceStatus.PREFILL),
    (decoding, SequenceStatus.DECODE),
    (parked, SequenceStatus.PARKED),
]
in_every_state = pytest.mark.parametrize(
    ("situation", "status"), STATES, ids=[status.value for _, status in STATES]
)
Situation = Callable[[], tuple[Harness, Job]]


@in_every_state
def test_cancel_ends_a_request_before_the_next_step(
    situation: Situation, status: SequenceStatus
) -> None:
    harness, job = situation()
    assert harness.sequence(job).status is status
    harness.cancel(job)
    harness.cancel(job)
    harness.turn()
    assert job.reason() == "abort"
    assert not [s for s in harness.scheduler.sequences() if s.request is job.request]
    assert job.request.request_id not in [rid for rid, *_ in harness.runner.plans[-1]] or (
        status is not SequenceStatus.WAITING and len(harness.jobs) == 1
    )
    assert harness.scheduler.park_budget.num_bytes == 0
    harness.drain()
    harness.check_drained()


@in_every_state
def test_a_deadline_ends_a_request(situation: Situation, status: SequenceStatus) -> None:
    harness, job = situation()
    job.request.deadline = 0.0
    harness.turn()
    assert job.reason() == "error"
    assert isinstance(job.endings()[0].error, DeadlineExceededError)
    harness.drain()
    harness.check_drained()


@in_every_state
def test_the_queue_timeout_is_for_those_that_were_never_computed(
    situation: Situation, status: SequenceStatus
) -> None:
    harness, job = situation()
    job.request.queue_deadline = 0.0
    harness.drain()
    if status is SequenceStatus.WAITING:
        error = job.endings()[0].error
        assert isinstance(error, QueueTimeoutError)
        assert error.retry_after >= 1
    else:
        assert job.reason() == "length"
    harness.check_drained()


def test_a_preempted_prompt_is_no_new_one_for_the_queue_timeout() -> None:
    harness, job = prefilling()
    harness.scheduler.preempt(harness.sequence(job))
    job.request.queue_deadline = 0.0
    harness.drain()
    assert job.reason() == "length"


def test_cancelling_one_of_n_leaves_the_others() -> None:
    harness = Harness()
    job = harness.add([1] * 40, n=3, max_tokens=10)
    harness.turn(3)
    harness.cancel(job, 1)
    harness.drain()
    assert [job.reason(index) for index in range(3)] == ["length", "abort", "length"]
    assert harness.core.inbox.num_requests == 0


def test_cancelling_what_has_ended_does_nothing() -> None:
    harness, job = decoding()
    harness.drain()
    harness.cancel(job)
    harness.turn()
    assert job.reason() == "length"


def test_end_tokens_and_stop_tokens_end_a_sequence_and_are_not_text() -> None:
    plain = Harness()
    job = plain.add([1] * 20, max_tokens=30)
    plain.drain()
    end = job.tokens()[10]
    first = job.tokens().index(end)
    for harness, params in (
        (Harness(vocab=FakeVocab(eog_tokens=[end])), {}),
        (Harness(), {"stop_token_ids": (end,)}),
    ):
        again = harness.add([1] * 20, max_tokens=30, **params)
        harness.drain()
        assert again.tokens() == job.tokens()[:first]
        assert again.reason() == "stop"
        assert again.endings()[0].stop_reason == (end if params else None)
        assert again.endings()[0].num_generated == first + 1


def test_ignore_eos_goes_on() -> None:
    harness = Harness(vocab=FakeVocab(3, eog_tokens=[0, 1]))
    job = harness.add([1] * 20, max_tokens=30, ignore_eos=True)
    harness.drain()
    assert len(job.tokens()) == 30


def test_logits_that_are_not_finite_end_that_sequence_alone() -> None:
    harness = Harness()
    jobs = [harness.add([seed] * 20, max_tokens=30) for seed in range(3)]
    harness.turn(3)
    harness.runner.faults.append(Fault(nan=frozenset({1})))
    harness.drain()
    assert [job.reason() for job in jobs] == ["length", "error", "length"]
    assert isinstance(jobs[1].endings()[0].error, EngineError)
    harness.check_drained()


@pytest.mark.parametrize("can_cut", [True, False], ids=["attention", "recurrent"])
def test_missing_cells_fail_nobody_when_the_ledger_is_right(can_cut: bool) -> None:
    harness = Harness(can_cut=can_cut)
    jobs = [harness.add([seed] * 20, max_tokens=30) for seed in range(4)]
    harness.turn(3)
    for _ in range(10):
        harness.runner.faults.extend([Fault(1), Fault(1), Fault()])
    harness.drain()
    assert [job.reason() for job in jobs] == ["length"] * 4
    harness.check_drained()


def test_missing_cells_for_a_single_sequence_fail_it_only_without_progress() -> None:
    harness, job = decoding()
    for _ in range(10):
        harness.runner.faults.extend([Fault(1), Fault(), Fault()])
    harness.drain()
    assert job.reason() == "length"
    job = harness.add([3] * 20, max_tokens=50)
    harness.runner.faults.extend([Fault(1)] * 5)
    harness.drain()
    error = job.endings()[0].error
    assert isinstance(error, DecodeError)
    assert error.status == 1


def test_cells_that_stay_missing_end_the_requests_and_nothing_spins() -> None:
    harness = Harness()
    jobs = [harness.add([seed] * 20, max_tokens=30) for seed in range(3)]
    harness.turn(3)
    harness.runner.faults.extend([Fault(1)] * 100)
    harness.turn(20)
    assert [job.reason() for job in jobs] == ["error"] * 3


@pytest.mark.parametrize("park", [True, False], ids=["park", "recompute"])
def test_memory_smaller_than_the_ledger_believes_fails_nobody_who_fits(park: bool) -> None:
    harness = Harness(256, park=park)
    harness.add([9] * 100, max_tokens=1)
    harness.drain()  # fills some of the cache
    harness.memory.num_cells = 150
    jobs = [harness.add([seed] * 20, max_tokens=40) for seed in range(4)]
    large = harness.add([5] * 20, max_tokens=180)
    harness.drain(shortages=True)
    assert harness.runner.num_shortages > 0
    assert [job.reason() for job in jobs] == ["length"] * 4
    assert large.reason() == "error"


def test_a_refused_batch_ends_the_request_that_is_to_blame() -> None:
    harness = Harness()
    jobs = [harness.add([seed] * 20, max_tokens=30) for seed in range(4)]
    harness.turn(3)
    blamed = jobs[2].request
    harness.runner.refuses = lambda rows: rows.sequence.request is blamed
    harness.drain()
    assert [job.reason() for job in jobs] == ["length", "length", "error", "length"]
    assert harness.scheduler.num_preemptions == 0
    harness.check_drained()


@pytest.mark.parametrize("status", [-2, -3])
def test_a_failed_step_ends_what_was_in_it_and_the_rest_is_computed_again(status: int) -> None:
    harness = Harness(256, max_num_seqs=2)
    inside = [harness.add([seed] * 60, max_tokens=100) for seed in (1, 2)]
    queued = harness.add([3] * 20, max_tokens=10)
    while not harness.scheduler.parked:
        harness.turn()
    harness.runner.faults.append(Fault(status))
    harness.turn()
    assert inside[0].reason() == "error"
    assert harness.memory.num_used == 0
    harness.drain()
    assert inside[1].reason() == queued.reason() == "length"
    harness.check_drained()


def test_after_a_failed_step_no_cached_cell_is_trusted() -> None:
    harness, _ = decoding()
    harness.add([4] * 10, max_tokens=1)
    harness.turn(3)
    assert harness.cache.num_evictable > 0
    harness.runner.faults.append(Fault(-3))
    harness.turn()
    assert harness.memory.num_used == 0


@pytest.mark.parametrize("can_cut", [True, False], ids=["attention", "recurrent"])
def test_an_aborted_step_is_taken_back_exactly(can_cut: bool) -> None:
    harness = Harness(can_cut=can_cut, chunk=40)
    jobs = [harness.add([seed] * 60, max_tokens=30) for seed in range(4)]
    for _ in range(20):
        harness.runner.faults.extend([Fault(2), Fault()])
    harness.drain()
    assert [job.reason() for job in jobs] == ["length"] * 4
    harness.check_drained()


def test_steps_that_computed_nothing_teach_the_budget_nothing() -> None:
    harness = Harness(chunk=20)
    seen: list[tuple[int, int]] = []
    harness.budget.observe = (  # type: ignore[method-assign]
        lambda prefill, decode, seconds: seen.append((prefill, decode))
    )
    harness.add([1] * 20, max_tokens=1)
    harness.runner.faults.extend([Fault(1), Fault(2)])
    harness.drain()
    assert seen == [(20, 0)]
    assert harness.core.metrics.prompt_tokens == 20


def test_full_queue_counts_everything_once() -> None:
    harness = Harness(max_num_seqs=2, max_queued_requests=3)
    jobs = [harness.add(array("i", [seed] * 5), max_tokens=5) for seed in range(5)]
    with pytest.raises(EngineError, match="queue is full"):
        harness.add([9], max_tokens=1)
    harness.drain()
    assert all(job.reason() == "length" for job in jobs)
    assert harness.core.metrics.requests_finished == {"length": 5}
    harness.add([9], max_tokens=1)
    harness.drain()
    harness.check_drained()
