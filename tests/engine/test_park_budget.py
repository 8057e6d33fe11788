"""ParkBudget: bounded, learns what copies cost, and does not give parking up after one slow one."""

from __future__ import annotations

from avllm.engine.park_budget import ParkBudget


def test_nothing_is_parked_without_memory() -> None:
    assert not ParkBudget(0).allows(10, recompute_seconds=100)


def test_nothing_private_is_nothing_to_park() -> None:
    assert not ParkBudget(2**20).allows(0, recompute_seconds=0)


def test_known_state_sizes_keep_within_the_memory() -> None:
    budget = ParkBudget(1000)
    budget.park(10, 600, 1e-6)
    assert budget.num_free == 400
    assert budget.allows(6, 1.0)
    assert not budget.allows(7, 1.0)
    budget.release(600)
    assert budget.allows(16, 1.0)


def test_a_refused_size_is_not_tried_again() -> None:
    budget = ParkBudget(1000)
    assert budget.allows(100, 1.0)
    budget.refuse(100)
    assert not budget.allows(100, 1.0)
    assert budget.allows(99, 1.0)


def test_the_cheaper_way_is_taken() -> None:
    budget = ParkBudget(2**30)
    for _ in range(50):
        budget.park(100, 100, 0.1)  # 2 ms a cell there and back
    assert budget.allows(10, 0.030)
    assert not budget.allows(10, 0.010)


def test_one_slow_copy_does_not_end_parking() -> None:
    budget = ParkBudget(2**30)
    budget.park(50, 50, 10.0)  # the machine stood still
    assert budget.allows(50, 50 * 0.002)
