"""Scheduler: which sequences run, which wait, which give way. Policy only: no C, no threads.

A step is mixed: first the next token of every running stream, then prompt chunks within the
budget. Nobody fails because the cache is full: cached prefixes are evicted, then the youngest
sequence is parked (its cells saved outside the pool) or computed again later. The oldest never
gives way, and each sequence fits the pool alone, so there is always progress.
"""

from __future__ import annotations

import itertools
import time
from bisect import insort
from collections import deque
from collections.abc import Iterator

from avllm.engine.batch_plan import BatchPlan, Rows
from avllm.engine.kv_cache import KVCache, Slot
from avllm.engine.prefix_tree import common_prefix
from avllm.engine.request import GenerationRequest
from avllm.engine.sequence import Sequence, SequenceStatus
from avllm.engine.step_budget import StepBudget

# A request waits for another one's prefill only when that saves at least this many tokens.
_WORTH_WAITING = 32
# Cells that must be left per running sequence when one is admitted or comes back, so that it is
# not sent away again by the next few tokens of the others.
_HEADROOM = 16
# Those who wait for another one's prefill are passed over; a step looks no further than this.
_ADMISSION_SCAN = 64


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
        self.park_memory = park_memory
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # by priority, oldest first
        self.parked: list[Sequence] = []
        self.num_preemptions = 0
        self._parked_bytes = 0
        self._park_seconds = 2e-5  # per cell, there and back; measured as it happens

    @property
    def has_work(self) -> bool:
        """True when a step may have something to compute."""
        return bool(self.running or self.waiting or self.parked)

    def add(self, request: GenerationRequest) -> list[Sequence]:
        """Put the sequences of a request at the end of the queue."""
        sequences = [Sequence(request, index) for index in range(request.params.n)]
        self.waiting.extend(sequences)
        return sequences

    def schedule(self) -> BatchPlan:
        """Decide the next step; an empty plan means there is nothing to compute now."""
        plan = BatchPlan()
        self._resume()
        self._admit(plan)
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
        sequence.status = SequenceStatus.FINISHED

    def reset_running(self) -> None:
        """After the memory was lost: everything that ran or was parked is computed again."""
        for sequence in [*self.running, *self.parked]:
            sequence.slot, sequence.parked = None, None
        again = sorted([*self.running, *self.parked], key=lambda sequence: sequence.priority)
        self.running, self.parked, self._parked_bytes = [], [], 0
        self.cache.reset()
        for sequence in reversed(again):
            self._requeue(sequence)

    def sequences(self) -> Iterator[Sequence]:
        """Yield every live sequence."""
        yield from self.running
        yield from self.parked
        yield from self.waiting

    # -- who may run ---------------------------------------------------------------------------

    def _resume(self) -> None:
        while self.parked and self.cache.has_free_id:
            sequence = self.parked[0]
            parked = sequence.parked
            assert parked is not None
            if not self._fits(parked.num_cells):
                return
            self.cache.ensure_free(parked.num_cells)
            del self.parked[0]
            self._parked_bytes -= len(parked.state)
            # While it decodes, the newest token is not in the cache yet.
            tokens = sequence.tokens[: parked.shared + parked.num_cells]
            sequence.parked = None
            sequence.slot = self.cache.restore(parked, tokens, sequence.request.cache_salt)
            if sequence.slot is None:
                self._requeue(sequence)
                return
            done = sequence.slot.length >= sequence.prefill_end
            self._run(sequence, SequenceStatus.DECODE if done else SequenceStatus.PREFILL)

    def _admit(self, plan: BatchPlan) -> None:
        if self.parked:  # they were here first
            return
        promised = sum(sequence.remaining_prefill for sequence in self.running)
        for sequence in list(itertools.islice(self.waiting, _ADMISSION_SCAN)):
            if not self.cache.has_free_id:
                return
            known, idle = self.cache.match_length(sequence.tokens, sequence.request.cache_salt)
            if self._is_led(sequence, known):
                continue
            need = len(sequence.tokens) - min(known, sequence.prefill_end - 1)
            # What it shares is no longer evictable once it runs.
            if self.running and not self._fits(promised + need + idle):
                return
            self.waiting.remove(sequence)
            if sequence.times.first_step is None:
                plan.admitted.append(sequence)
            self._start(sequence)
            promised += sequence.remaining_prefill

    def _start(self, sequence: Sequence) -> None:
        # At least one token must be computed: its logits give the next one.
        most = sequence.prefill_end - 1
        slot = self.cache.open(sequence.tokens, sequence.request.cache_salt, most)
        sequence.slot = slot
        if sequence.times.first_step is None:
            sequence.times.first_step = time.perf_counter()
            sequence.cached_tokens = slot.length
        self._run(sequence, SequenceStatus.PREFILL)

    def _is_led(self, sequence: Sequence, known: int) -> bool:
        # True while another prefill is about to compute a longer prefix of this prompt.
        if not self.cache.can_share:
            return False
        return any(
            self._common(leader, sequence) >= known + _WORTH_WAITING
            for leader in self.running
            if leader.status is SequenceStatus.PREFILL
            and leader.request.cache_salt == sequence.request.cache_salt
        )

    def _common(self, leader: Sequence, sequence: Sequence) -> int:
        if leader.request is sequence.request:
            return sequence.prompt_length - 1
        return min(
            common_prefix(leader.tokens, 0, sequence.tokens, 0),
            leader.prefill_end,
            sequence.prefill_end - 1,
        )

    def _fits(self, cells: int) -> bool:
        # Alone, a sequence always fits: its length was checked against the pool at submission.
        headroom = _HEADROOM * (len(self.running) + 1) if self.running else 0
        return cells + headroom <= self.cache.num_free + self.cache.num_evictable

    def _run(self, sequence: Sequence, status: SequenceStatus) -> None:
        sequence.status = status
        insort(self.running, sequence, key=lambda sequence: sequence.priority)

    # -- who gives way -------------------------------------------------------------------------

    def _make_room(self) -> None:
        # Every running stream needs one cell now; the youngest gives way until that holds.
        while True:
            decodes = sum(1 for s in self.running if s.status is SequenceStatus.DECODE)
            prefills = 1 if decodes < len(self.running) else 0
            room = self.cache.num_free + self.cache.num_evictable
            if decodes + prefills <= room or len(self.running) <= 1:
                return
            self.preempt(self.running[-1])

    def preempt(self, sequence: Sequence) -> None:
        """Send a running sequence away: parked if that is cheaper than computing it again."""
        assert sequence.slot is not None
        self.running.remove(sequence)
        self.num_preemptions += 1
        sequence.times.preemptions += 1
        slot, sequence.slot = sequence.slot, None
        if self._should_park(sequence, slot):
            self._park(sequence, slot)
            return
        self.cache.close(slot, keep=True)  # evictable, and a head start if it survives
        self._requeue(sequence)

    def _should_park(self, sequence: Sequence, slot: Slot) -> bool:
        # Half a prompt is cheap to finish later, and its first half stays as cache.
        if sequence.status is not SequenceStatus.DECODE or self._parked_bytes >= self.park_memory:
            return False
        cells = self.cache.private_cells(slot)
        recompute = self.budget.predict(cells, 0) - self.budget.predict(0, 0)
        return cells * self._park_seconds < recompute

    def _park(self, sequence: Sequence, slot: Slot) -> None:
        started = time.perf_counter()
        sequence.parked = self.cache.park(slot)
        seconds = 2 * (time.perf_counter() - started)  # restoring copies the same bytes back
        self._park_seconds += 0.2 * (seconds / sequence.parked.num_cells - self._park_seconds)
        self._parked_bytes += len(sequence.parked.state)
        sequence.status = SequenceStatus.PARKED
        insort(self.parked, sequence, key=lambda sequence: sequence.priority)

    def _requeue(self, sequence: Sequence) -> None:
        # All tokens are known: they are a prompt now, and sampling goes on after them.
        sequence.status = SequenceStatus.WAITING
        sequence.prefill_end = len(sequence.tokens)
        self.waiting.appendleft(sequence)

    def _drop_parked(self, sequence: Sequence) -> None:
        self.parked.remove(sequence)
        if sequence.parked is not None:
            self._parked_bytes -= len(sequence.parked.state)
            self.cache.drop(sequence.parked)
            sequence.parked = None

    # -- prompts -------------------------------------------------------------------------------

    def _add_prefill(self, plan: BatchPlan) -> None:
        pending = [s for s in self.running if s.status is SequenceStatus.PREFILL]
        if not pending:
            return
        room = self.cache.num_free + self.cache.num_evictable - plan.num_tokens
        budget = min(self.budget.prefill_tokens(plan.num_tokens), room)
        for sequence, count in _share(pending, budget):
            end = sequence.num_computed + count
            wants_token = end == sequence.prefill_end and sequence.request.params.max_tokens != 0
            plan.rows.append(Rows(sequence, sequence.num_computed, count, wants_token))


def _share(pending: list[Sequence], budget: int) -> list[tuple[Sequence, int]]:
    # Max-min fair: equal shares, and what a short prompt leaves goes to the longer ones, so that
    # nobody waits behind a long prompt. Ties go to the oldest.
    shares: list[tuple[Sequence, int]] = []
    by_need = sorted(pending, key=lambda sequence: sequence.remaining_prefill)
    for position, sequence in enumerate(by_need):
        count = min(sequence.remaining_prefill, -(-budget // (len(by_need) - position)))
        if count > 0:
            shares.append((sequence, count))
            budget -= count
    return shares


