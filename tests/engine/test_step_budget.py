"""StepBudget learns what steps cost on any machine, and fair_shares divides fairly."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avllm.engine.step_budget import StepBudget, fair_shares

TARGET = 0.1
MAX_TOKENS = 512


class Machine:
    """A machine on which a step costs base + per decode row + per prompt token, and noise."""

    def __init__(self, base: float, decode: float, prefill: float, seed: int = 0) -> None:
        self.cost = (base, decode, prefill)
        self.random = random.Random(seed)

    def true_seconds(self, prefill: int, decode: int) -> float:
        """Return what a step costs without noise."""
        return self.cost[0] + self.cost[1] * decode + self.cost[2] * prefill

    def run(self, budget: StepBudget, decode: int, *, idle: bool = False) -> float:
        """Compute a step within the budget and return its seconds without noise."""
        prefill = 0 if idle else budget.prefill_tokens(decode)
        seconds = self.true_seconds(prefill, decode)
        if prefill + decode:
            budget.observe(prefill, decode, seconds * self.random.uniform(0.8, 1.2))
        return seconds


@pytest.mark.parametrize(
    "machine",
    [Machine(0.01, 0.002, 0.002), Machine(0.001, 0.0005, 0.0003), Machine(0.02, 0.004, 0.006)],
    ids=["typical", "fast", "slow"],
)
def test_budget_comes_to_use_the_target_and_keeps_it(machine: Machine) -> None:
    budget = StepBudget(TARGET, MAX_TOKENS)
    for _ in range(100):
        machine.run(budget, decode=4)
    steps = [machine.run(budget, decode=4) for _ in range(100)]
    assert max(steps) <= TARGET * 1.25
    most = machine.true_seconds(MAX_TOKENS - 4, 4)
    assert sum(steps) / 100 >= 0.75 * min(TARGET, most)


def test_budget_follows_a_machine_that_becomes_slower() -> None:
    budget = StepBudget(TARGET, MAX_TOKENS)
    fast, slow = Machine(0.01, 0.002, 0.001), Machine(0.01, 0.002, 0.004)
    for _ in range(300):
        fast.run(budget, decode=8)
    for _ in range(100):
        slow.run(budget, decode=8)
    assert max(slow.run(budget, decode=8) for _ in range(50)) <= TARGET * 1.25


def test_one_interruption_changes_little() -> None:
    budget = StepBudget(TARGET, MAX_TOKENS)
    machine = Machine(0.01, 0.002, 0.002)
    for _ in range(200):
        machine.run(budget, decode=4)
    before = budget.prefill_tokens(4)
    budget.observe(before, 4, 30.0)
    for _ in range(20):
        machine.run(budget, decode=4)
    assert before / 2 <= budget.prefill_tokens(4) <= before * 2


@given(
    st.floats(0, 0.05),
    st.floats(0, 0.02),
    st.floats(1e-5, 0.02),
    st.integers(0, 2**16),
    st.lists(st.tuples(st.sampled_from([0, 1, 4, 32, 128]), st.booleans()), min_size=1, max_size=6),
)
@settings(max_examples=40, deadline=None)
def test_no_history_makes_it_diverge(
    base: float,
    decode: float,
    prefill: float,
    seed: int,
    phases: list[tuple[int, bool]],
) -> None:
    budget = StepBudget(TARGET, MAX_TOKENS)
    machine = Machine(base, decode, prefill, seed)
    for decodes, idle in phases:
        for _ in range(150):
            machine.run(budget, decodes, idle=idle)
            tokens = budget.prefill_tokens(decodes)
            assert min(8, MAX_TOKENS - decodes) <= tokens <= MAX_TOKENS - decodes
            seconds = budget.predict(tokens, decodes)
            assert math.isfinite(seconds)
            assert seconds >= 0


def test_long_idle_decoding_does_not_unlearn_the_cost_of_prompts() -> None:
    budget = StepBudget(TARGET, MAX_TOKENS)
    machine = Machine(0.01, 0.002, 0.003)
    for _ in range(100):
        machine.run(budget, decode=4)
    for _ in range(20_000):
        machine.run(budget, decode=4, idle=True)
    assert machine.run(budget, decode=4) <= 2 * TARGET


def test_there_is_always_some_prefill_while_the_batch_has_room() -> None:
    budget = StepBudget(0.001, 64)
    for _ in range(50):
        budget.observe(8, 32, 5.0)
    assert budget.prefill_tokens(32) == 8
    assert budget.prefill_tokens(60) == 4
    assert budget.prefill_tokens(64) == 0


def test_streams_slower_than_the_target_are_slowed_by_a_quarter_at_most() -> None:
    budget = StepBudget(TARGET, MAX_TOKENS)
    machine = Machine(0.04, 0.005, 0.002)
    for i in range(300):
        machine.run(budget, decode=32, idle=i % 3 == 0)
    alone = machine.true_seconds(0, 32)
    assert alone > TARGET
    assert 1.15 * alone <= machine.run(budget, decode=32) <= 1.35 * alone


def test_prompts_without_streams_may_take_longer_steps() -> None:
    budget = StepBudget(TARGET, 10_000)
    assert budget.prefill_tokens(0) > 3 * budget.prefill_tokens(1)


@given(st.lists(st.integers(1, 60), max_size=20), st.integers(0, 300))
def test_shares_are_max_min_fair(needs: list[int], budget: int) -> None:
    shares = fair_shares(needs, budget)
    assert sum(shares) == min(budget, sum(needs))
    assert all(0 <= share <= need for share, need in zip(shares, needs, strict=True))
    # Nobody who wants more has less than another, but for the one that does not divide.
    wanting = [share for share, need in zip(shares, needs, strict=True) if share < need]
    assert not wanting or max(shares) <= min(wanting) + 1


@given(st.lists(st.integers(1, 60), min_size=1, max_size=20), st.integers(1, 300))
def test_the_first_always_gets_something(needs: list[int], budget: int) -> None:
    assert fair_shares(needs, budget)[0] >= 1


def test_what_does_not_divide_goes_to_the_first() -> None:
    assert fair_shares([9, 9, 9], 5) == [2, 2, 1]
    assert fair_shares([50, 2, 50], 22) == [10, 2, 10]
    assert fair_shares([50, 1, 1, 1], 2) == [1, 1, 0, 0]
