"""Scheduler: which sequences run, which wait, which give way. Policy only: no C, no threads.

A step is mixed: first the next token of every running stream, then prompt chunks within the
budget. Nobody fails because the cache is full: cached prefixes are evicted, then the youngest
sequence is parked (its cells saved outside the pool) or computed again later. The oldest that
runs never gives way and has a row in every step, and each sequence fits the pool alone, so there
is always progress. Who cannot come in yet stops everybody younger.
"""

from __future__ import annotations

import heapq
import time
from bisect import insort
from collections.abc import Iterator
from operator import attrgetter

from avllm.engine.batch_plan import BatchPlan, Rows
from avllm.engine.kv_cache import KVCache
from avllm.engine.leading import is_led
from avllm.engine.park_budget import ParkBudget
from avllm.engine.request import GenerationRequest
from avllm.engine.sequence import Sequence, SequenceStatus
from avllm.engine.step_budget import StepBudget, fair_shares

# Cells that must be left per running sequence when one is admitted or comes back, so that it is
# not sent away again by the next few tokens of the others.
_HEADROOM = 16
# Those who wait for another one's prefill are passed over; a step looks no further than this.
_ADMISSION_SCAN = 64

_by_priority = attrgetter("priority")


class Scheduler:
    """Owns every live sequence and decides each step.

    Owned by the engine thread.

    Args:
        cache: the ledger of cells.
        budget: how many prompt tokens a step may take.
        park_memory: bytes of host memory for parked sequences.
    """

    def __init__(self, cache: KVCache, budget: StepBudget, park_memory: int = 2**30) -> None:
        self.cache = cache
        self.budget = budget
        self.park_budget = ParkBudget(park_memory)
        # Each by priority, oldest first; a live sequence is in exactly one of them.
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.parked: list[Sequence] = []
        self.num_preemptions = 0
        self._is_held = False  # nobody comes in before a running sequence ends

    @property
    def has_work(self) -> bool:
        """True when a step may have something to compute."""
        return bool(self.running or self.waiting or self.parked)

    def add(self, request: GenerationRequest) -> list[Sequence]:
        """Put the sequences of a request into the queue."""
        sequences = [Sequence(request, index) for index in range(request.params.n)]
        for sequence in sequences:
            insort(self.waiting, sequence, key=_by_priority)
        return sequences

    def schedule(self) -> BatchPlan:
        """Decide the next step; an empty plan means there is nothing to compute now."""
        plan = BatchPlan()
        self._bring_in(plan)
        self._make_room()
        for sequence in self.running:
            if sequence.status is SequenceStatus.DECODE:
                plan.rows.append(Rows(sequence, sequence.num_computed, 1, True, is_decode=True))
        self._add_prefill(plan)
        self.cache.ensure_free(plan.num_tokens)
        return plan

    def computed(self, rows: Rows) -> None:
        """Count the cells of rows that a step has computed, and share those of prompts."""
        sequence = rows.sequence
        assert sequence.slot is not None
        end = rows.start + rows.count
        self.cache.append(sequence.slot, sequence.tokens[rows.start : end])
        if not rows.is_decode:
            self.cache.commit(sequence.slot)
            if end == sequence.prefill_end:
                sequence.status = SequenceStatus.DECODE

    def finish(self, sequence: Sequence, *, keep: bool = True) -> None:
        """Take a sequence out of wherever it is; its cells stay as cache when ``keep``."""
        if sequence.status is SequenceStatus.WAITING:
            self.waiting.remove(sequence)
        elif sequence.status is SequenceStatus.PARKED:
            self._drop_parked(sequence)
        elif sequence.slot is not None:
            self.running.remove(sequence)
            self.cache.close(sequence.slot, keep=keep)
            sequence.slot = None
            self._is_held = False
        sequence.status = SequenceStatus.FINISHED

    def rollback(self, sequence: Sequence) -> None:
        """Forget what an aborted step computed of a running sequence."""
        assert sequence.slot is not None
        if not self.cache.rollback(sequence.slot):
            self._recompute(sequence, keep=False)

    def reset_running(self) -> None:
        """After the memory was lost: everything that ran or was parked is computed again."""
        again = [*self.running, *self.parked]
        self.running, self.parked = [], []
        self.cache.reset()
        for sequence in again:
            if sequence.parked is not None:
                self.park_budget.release(len(sequence.parked.state))
            sequence.slot, sequence.parked = None, None
            self._count_preemption(sequence)
            self._requeue(sequence)

    def sequences(self) -> Iterator[Sequence]:
        """Yield every live sequence."""
        yield from self.running
        yield from self.parked
        yield from self.waiting

    # -- who may run: strictly by age; followers of a prefill alone are passed over -----------

    def _bring_in(self, plan: BatchPlan) -> None:
        candidates = heapq.merge(
            list(self.parked), self.waiting[:_ADMISSION_SCAN], key=_by_priority
        )
        for sequence in candidates:
            if not self.cache.has_free_id or (self._is_held and self.running):
                return
            if sequence.status is SequenceStatus.PARKED:
                is_in = self._resume(sequence)
            else:
                known, idle = self.cache.match_length(sequence.tokens, sequence.request.cache_salt)
                if self.cache.can_share and is_led(sequence, known, self._prefilling()):
                    continue
                is_in = self._admit(sequence, known, idle, plan)
            if not is_in:
                return

    def _resume(self, sequence: Sequence) -> bool:
        parked = sequence.parked
        assert parked is not None
        if not self._fits(self.cache.cells_to_restore(parked)):
            return False
        self.parked.remove(sequence)
        sequence.parked = None
        self.park_budget.release(len(parked.state))
        # While it decodes, the newest token is not in the cache yet.
        tokens = sequence.tokens[: parked.shared + parked.num_cells]
        sequence.slot = self.cache.restore(parked, tokens, sequence.request.cache_salt)
        if sequence.slot is None:
            self._requeue(sequence)
            return False  # the next step admits it
        self._run(sequence, SequenceStatus.DECODE)
        return True

    def _admit(self, sequence: Sequence, known: int, idle: int, plan: BatchPlan) -> bool:
        need = len(sequence.tokens) - min(known, sequence.prefill_end - 1)
        # What it shares is no longer evictable once it runs.
        if not self._fits(need + idle):
            return False
        self.waiting.remove(sequence)
        if sequence.times.first_step is None:
            plan.admitted.append(sequence)
        self._start(sequence)
        return True

    def _start(self, sequence: Sequence) -> None:
        # At least one token must be computed: its logits give the next one.
        most = sequence.prefill_end - 1
        slot = self.cache.open(sequence.tokens, sequence.request.cache_salt, most)
        sequence.slot = slot
        if sequence.times.first_step is None:
            sequence.times.first_step = time.perf_counter()
            sequence.cached_tokens = slot.length
        self._run(sequence, SequenceStatus.PREFILL)

    def _fits(self, cells: int) -> bool:
        # Alone, a sequence always fits: its length was checked against the pool at submission.
        if not self.running:
            return True
        promised = sum(sequence.remaining_prefill for sequence in self._prefilling())
        headroom = _HEADROOM * (len(self.running) + 1)
        return promised + cells + headroom <= self._room()

    def _room(self) -> int:
        return self.cache.num_free + self.cache.num_evictable

    def _prefilling(self) -> list[Sequence]:
        return [s for s in self.running if s.status is SequenceStatus.PREFILL]

    def _run(self, sequence: Sequence, status: SequenceStatus) -> None:
        sequence.status = status
        insort(self.running, sequence, key=_by_priority)

    # -- who gives way -------------------------------------------------------------------------

    def _make_room(self) -> None:
        # Every running stream needs one cell now, and the prompts one to go on at all; the
        # youngest gives way until that holds.
        while len(self.running) > 1:
            prefills = len(self._prefilling())
            if len(self.running) - prefills + min(prefills, 1) <= self._room():
                return
            self.preempt(self.running[-1])

    def give_way(self) -> bool:
        """Make a smaller step, after llama.cpp did not find the cells that the ledger counts.

        Returns:
            False when there is nothing to give: one sequence runs and nothing is cached.
        """
        is_cached = self.cache.num_evictable > 0
        self.cache.ensure_free(self.cache.num_cells)
        if len(self.running) > 1:
            self.preempt(self.running[-1])
            self._is_held = True  # or it would come back at once, to the same end
            return True
        return is_cached

    def preempt(self, sequence: Sequence) -> None:
        """Send a running sequence away: parked if that is cheaper than computing it again."""
        if not self._park(sequence):
            # What it leaves is evictable, and a head start if it survives.
            self._recompute(sequence, keep=True)

    def _park(self, sequence: Sequence) -> bool:
        slot = sequence.slot
        # Half a prompt is cheap to finish later, and its first half stays as cache.
        if slot is None or sequence.status is not SequenceStatus.DECODE:
            return False
        cells = slot.num_private
        recompute = self.budget.predict(cells, 0) - self.budget.predict(0, 0)
        if not self.park_budget.allows(cells, recompute):
            return False
        started = time.perf_counter()
        parked = self.cache.park(slot, self.park_budget.num_free)
        if parked is None:
            self.park_budget.refuse(cells)
            return False
        self.park_budget.park(cells, len(parked.state), time.perf_counter() - started)
        self.running.remove(sequence)
        sequence.slot, sequence.parked = None, parked
        sequence.status = SequenceStatus.PARKED
        insort(self.parked, sequence, key=_by_priority)
        self._count_preemption(sequence)
        return True

    def _recompute(self, sequence: Sequence, *, keep: bool) -> None:
        assert sequence.slot is not None
        self.running.remove(sequence)
        self.cache.close(sequence.slot, keep=keep)
        sequence.slot = None
        self._count_preemption(sequence)
        self._requeue(sequence)

    def _count_preemption(self, sequence: Sequence) -> None:
        self.num_preemptions += 1
        sequence.times.preemptions += 1

    def _requeue(self, sequence: Sequence) -> None:
        # All tokens are known: they are a prompt now, and sampling goes on after them.
        sequence.status = SequenceStatus.WAITING
        sequence.prefill_end = len(sequence.tokens)
        insort(self.waiting, sequence, key=_by_priority)

    def _drop_parked(self, sequence: Sequence) -> None:
        assert sequence.parked is not None
        self.parked.remove(sequence)
        self.park_budget.release(len(sequence.parked.state))
        self.cache.drop(sequence.parked)
        sequence.parked = None

    # -- prompts -------------------------------------------------------------------------------

    def _add_prefill(self, plan: BatchPlan) -> None:
        pending = self._prefilling()
        if not pending:
            return
        room = self._room() - plan.num_tokens
        budget = min(self.budget.prefill_tokens(plan.num_tokens), room)
        shares = fair_shares([sequence.remaining_prefill for sequence in pending], budget)
        for sequence, count in zip(pending, shares, strict=True):
            if count:
                is_last = count == sequence.remaining_prefill
                wants_token = is_last and sequence.request.params.max_tokens != 0
                plan.rows.append(Rows(sequence, sequence.num_computed, count, wants_token))
