"""Scheduler: who runs, in which order, who gives way; on the fake backend, turn by turn."""

from __future__ import annotations

import pytest

from avllm.engine.sequence import SequenceStatus

from .harness import Harness, Job

TEXT = list(range(100, 400))


def names(harness: Harness) -> list[int]:
    """Return the request ids of the newest step, in batch order."""
    return [request_id for request_id, *_ in harness.runner.plans[-1]]


def counts(harness: Harness, *jobs: Job) -> list[int]:
    """Return the rows that each request had in the newest step."""
    plan = harness.last_plan()
    return [
        sum(count for (rid, _), (_, count) in plan.items() if rid == job.request.request_id)
        for job in jobs
    ]


def prefilled(harness: Harness) -> int:
    """Return the prompt tokens computed so far, over all steps."""
    return sum(n for plan in harness.runner.plans for *_, n in plan if n > 1)


def test_one_request_gives_what_the_model_says() -> None:
    harness = Harness()
    job = harness.add(TEXT[:150], max_tokens=20)
    harness.drain()
    assert job.tokens() == harness.expected(job)[0]
    assert len(job.tokens()) == 20
    assert job.reason() == "length"
    harness.check_drained()


def test_decodes_come_first_and_prompts_fill_the_step() -> None:
    harness = Harness(chunk=32)
    streams = [harness.add([seed] * 8, max_tokens=50) for seed in (1, 2)]
    harness.turn(2)
    long = harness.add(TEXT[:100], max_tokens=5)
    harness.turn()
    assert counts(harness, *streams, long) == [1, 1, 32]
    assert names(harness) == [job.request.request_id for job in (*streams, long)]


def test_no_stream_pauses_while_prompts_are_computed() -> None:
    harness = Harness(2000, chunk=16)
    stream = harness.add([1] * 8, max_tokens=200)
    harness.turn()
    for seed in (2, 3):
        harness.add([seed] * 400, max_tokens=3)
    before = len(stream.tokens())
    harness.turn(50)
    assert len(stream.tokens()) == before + 50


def test_prompts_share_the_budget_and_short_ones_are_not_stuck() -> None:
    harness = Harness(chunk=30)
    long, short, longer = (
        harness.add([seed] * size, max_tokens=5) for seed, size in ((1, 90), (2, 6), (3, 95))
    )
    harness.turn()
    assert counts(harness, long, short, longer) == [12, 6, 12]
    assert len(short.tokens()) == 1


def test_the_oldest_prompt_gets_on_when_the_budget_is_short() -> None:
    harness = Harness(chunk=2)
    jobs = [harness.add([seed] * 20, max_tokens=2) for seed in range(4)]
    harness.turn()
    assert counts(harness, *jobs) == [1, 1, 0, 0]


def test_first_come_first_served() -> None:
    harness = Harness(max_num_seqs=2)
    jobs = [harness.add([seed] * 10, max_tokens=6) for seed in range(6)]
    harness.drain()
    order = dict.fromkeys(rid for plan in harness.runner.plans for rid, *_ in plan)
    assert list(order) == [job.request.request_id for job in jobs]


def test_a_request_that_does_not_fit_holds_the_younger_back() -> None:
    harness = Harness(256)
    harness.add([1] * 100, max_tokens=40)
    harness.turn(2)
    large = harness.add([2] * 150, max_tokens=5)
    small = harness.add([3] * 5, max_tokens=5)
    harness.turn(5)
    assert large.updates == small.updates == []
    harness.drain()
    assert large.reason() == small.reason() == "length"


def test_identical_prompts_are_computed_once() -> None:
    harness = Harness(1000, max_num_seqs=8, chunk=50)
    jobs = [harness.add(TEXT[:200], max_tokens=4) for _ in range(8)]
    harness.turn()
    assert counts(harness, *jobs) == [50] + [0] * 7
    harness.drain()
    assert prefilled(harness) == 200
    assert [job.updates[-1].cached_tokens for job in jobs] == [0] + [199] * 7


def test_a_common_beginning_is_computed_once_and_followers_join_when_it_is_there() -> None:
    harness = Harness(1000, max_num_seqs=4, chunk=100)
    jobs = [harness.add([*TEXT[:100], seed, *[seed] * 9], max_tokens=4) for seed in range(4)]
    harness.drain()
    assert prefilled(harness) == 110 + 3 * 10
    assert [job.updates[-1].cached_tokens for job in jobs] == [0, 100, 100, 100]


def test_those_with_nothing_in_common_do_not_wait_for_a_leader() -> None:
    harness = Harness(1000, chunk=40)
    leader = harness.add(TEXT[:200], max_tokens=4)
    follower = harness.add(TEXT[:150], max_tokens=4)
    other = harness.add([9] * 10, max_tokens=4)
    tenant = harness.add(TEXT[:150], salt="tenant", max_tokens=4)
    harness.turn()
    assert [bool(count) for count in counts(harness, leader, follower, other, tenant)] == [
        True, False, True, True,
    ]  # fmt: skip


def test_a_follower_goes_on_alone_when_its_leader_is_cancelled() -> None:
    harness = Harness(1000, chunk=40)
    leader = harness.add(TEXT[:200], max_tokens=4)
    follower = harness.add(TEXT[:150], max_tokens=4)
    harness.turn(2)
    harness.cancel(leader)
    harness.drain()
    assert follower.reason() == "length"
    assert follower.updates[-1].cached_tokens == 80


def test_n_sequences_fork_after_one_prefill() -> None:
    harness = Harness(1000, max_num_seqs=8, chunk=50)
    job = harness.add(TEXT[:120], n=6, max_tokens=5)
    harness.drain()
    assert prefilled(harness) == 120
    outputs = [tuple(job.tokens(index)) for index in range(6)]
    assert len(set(outputs)) == 6
    assert harness.memory.num_used <= 120 + 6 * 5


def test_the_next_turn_of_a_chat_reuses_its_whole_history() -> None:
    harness = Harness()
    first = harness.add(TEXT[:50], max_tokens=20)
    harness.drain()
    history = [*first.prompt, *first.tokens()]
    second = harness.add([*history, 1, 2, 3], max_tokens=5)
    harness.drain()
    # The last token of an answer is sampled but never computed.
    assert second.updates[-1].cached_tokens == len(history) - 1


def test_a_running_sequence_is_shared_before_it_ends() -> None:
    harness = Harness()
    first = harness.add(TEXT[:100], max_tokens=100)
    harness.turn(3)
    second = harness.add(TEXT[:100], max_tokens=5)
    harness.turn()
    assert not first.is_finished
    assert second.updates[-1].cached_tokens == 99


def test_without_prefix_cache_nothing_is_kept() -> None:
    harness = Harness(prefix_cache=False)
    for _ in range(2):
        job = harness.add(TEXT[:100], max_tokens=5)
        harness.drain()
        assert job.updates[-1].cached_tokens == 0
        assert harness.memory.num_used == 0


def test_max_tokens_0_computes_the_prompt_and_samples_nothing() -> None:
    harness = Harness(chunk=40)
    job = harness.add(TEXT[:100], max_tokens=0)
    harness.drain()
    assert (job.tokens(), job.reason()) == ([], "length")
    assert harness.cache.num_evictable == 100


@pytest.mark.parametrize("park", [True, False], ids=["park", "recompute"])
@pytest.mark.parametrize("can_cut", [True, False], ids=["attention", "recurrent"])
def test_four_times_the_pool_and_nobody_fails(park: bool, can_cut: bool) -> None:
    harness = Harness(256, max_num_seqs=16, park=park, can_cut=can_cut)
    jobs = [harness.add([seed] * 10, max_tokens=54) for seed in range(16)]
    harness.drain()
    assert [job.reason() for job in jobs] == ["length"] * 16
    assert harness.scheduler.num_preemptions > 0
    steps = sum(u.times.preemptions for job in jobs for u in job.updates if u.finish_reason)
    assert steps == harness.scheduler.num_preemptions
    harness.check_drained()


def test_the_youngest_gives_way_and_the_oldest_never_does() -> None:
    harness = Harness(256, max_num_seqs=4)
    jobs = [harness.add([seed] * 30, max_tokens=90) for seed in range(4)]
    harness.drain()
    preempted = [job.updates[-1].times.preemptions for job in jobs]
    assert preempted[0] == 0
    assert preempted[-1] > 0
    assert preempted == sorted(preempted)


def test_parked_sequences_lose_no_step_to_prefill() -> None:
    harness = Harness(256, max_num_seqs=4)
    for seed in range(4):
        harness.add([seed] * 30, max_tokens=90)
    harness.drain()
    assert harness.scheduler.num_preemptions > 0
    assert prefilled(harness) == 4 * 30


def test_parking_keeps_a_common_prefix_in_the_pool() -> None:
    harness = Harness(256, max_num_seqs=3, chunk=256)
    for seed in range(3):
        harness.add([*TEXT[:60], seed], max_tokens=100)
    while not harness.scheduler.parked:
        harness.turn()
    (sequence,) = harness.scheduler.parked
    assert sequence.parked is not None
    assert sequence.parked.shared == 60
    harness.drain()
    harness.check_drained()


def test_a_parked_sequence_needs_room_for_its_prefix_too() -> None:
    harness = Harness(256, chunk=256)
    sharer = harness.add([*TEXT[:60], 1], max_tokens=2)
    job = harness.add([*TEXT[:60], *[2] * 30], max_tokens=100)
    beside = harness.add([9] * 100, max_tokens=100)
    harness.turn(22)
    assert sharer.is_finished
    harness.scheduler.preempt(harness.sequence(job))
    harness.turn(3)  # 50 cells and their prefix of 60 do not fit beside 120 for long
    assert harness.sequence(job).status is SequenceStatus.PARKED
    assert not beside.is_finished
    harness.drain()
    assert harness.scheduler.num_preemptions == 1


def test_a_cached_prefix_is_no_room_for_the_one_that_shares_it() -> None:
    harness = Harness(256, chunk=256)
    harness.add(TEXT[:100], max_tokens=0)
    harness.drain()
    harness.add([9] * 90, max_tokens=30)
    harness.turn(10)
    job = harness.add(TEXT[:130], max_tokens=5)
    harness.turn(3)
    assert harness.sequence(job).status is SequenceStatus.WAITING
    harness.drain()
    assert harness.scheduler.num_preemptions == 0


def test_the_older_of_a_parked_and_a_waiting_one_comes_first() -> None:
    harness = Harness(512)
    jobs = [harness.add([seed] * 30, max_tokens=60) for seed in range(3)]
    harness.turn(5)
    harness.scheduler.preempt(harness.sequence(jobs[2]))
    harness.budget.token_seconds = 0.0
    harness.scheduler.preempt(harness.sequence(jobs[1]))
    states = [harness.sequence(job).status for job in jobs[1:]]
    assert states == [SequenceStatus.WAITING, SequenceStatus.PARKED]
    harness.turn()
    assert harness.sequence(jobs[1]) in harness.scheduler.running


def test_parked_memory_is_bounded() -> None:
    harness = Harness(256, max_num_seqs=8)
    harness.scheduler.park_budget.max_bytes = 700
    jobs = [harness.add([seed] * 20, max_tokens=80) for seed in range(8)]
    harness.drain()  # the harness checks the bound after every turn
    assert all(job.reason() == "length" for job in jobs)


def test_a_restore_that_fails_is_computed_again() -> None:
    harness = Harness(256, max_num_seqs=4)
    jobs = [harness.add([seed] * 30, max_tokens=90) for seed in range(4)]
    harness.memory.fail_restores = 2
    harness.drain()
    assert harness.memory.fail_restores == 0
    assert all(job.reason() == "length" for job in jobs)


def test_who_gave_way_comes_back_before_the_younger() -> None:
    harness = Harness(256, max_num_seqs=3, park=False)
    jobs = [harness.add([seed] * 40, max_tokens=80) for seed in range(6)]
    while not harness.scheduler.num_preemptions:
        harness.turn()
    order = [sequence.request for sequence in harness.scheduler.waiting]
    assert order == [job.request for job in jobs[-len(order) :]]
    harness.drain()


def test_running_sequences_that_generated_much_leave_no_false_room() -> None:
    harness = Harness(256, max_num_seqs=3)
    harness.add([1] * 10, max_tokens=150)
    harness.turn(80)
    prompt = harness.add([2] * 100, max_tokens=20)
    harness.turn(2)
    waits = harness.add([3] * 100, max_tokens=20)
    harness.turn(3)
    assert prompt.updates
    assert not waits.updates
    assert harness.scheduler.num_preemptions == 0


def test_one_request_may_take_the_whole_pool() -> None:
    harness = Harness(256)
    others = [harness.add([seed] * 30, max_tokens=30) for seed in range(3)]
    harness.turn(3)
    whole = harness.add(TEXT[:200], limit=256)
    harness.drain()
    assert len(whole.tokens()) == 56
    assert all(job.reason() == "length" for job in others)


def test_a_sequence_can_be_parked_a_hundred_times() -> None:
    harness = Harness(256, max_num_seqs=2)
    job = harness.add([1] * 20, max_tokens=200)
    harness.turn(2)
    for _ in range(100):
        harness.scheduler.preempt(harness.sequence(job))
        harness.turn()
    assert harness.scheduler.num_preemptions == 100
    harness.drain()
    assert job.reason() == "length"
