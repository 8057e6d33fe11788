"""An EngineCore on the fake backend, turned by hand; and what must hold after every turn."""

from __future__ import annotations

from array import array
from collections.abc import Sequence as Tokens

from fakes import FakeRunner, FakeVocab, expected_tokens

from avllm.config import EngineConfig
from avllm.engine.batch_plan import BatchPlan
from avllm.engine.core import EngineCore
from avllm.engine.kv_cache import KVCache
from avllm.engine.request import Cancellation, GenerationRequest, SequenceUpdate
from avllm.engine.sequence import Sequence, SequenceStatus
from avllm.engine.slot import Slot
from avllm.engine.step_budget import StepBudget
from avllm.errors import DeadlineExceededError, QueueTimeoutError
from avllm.sampling_params import SamplingParams

Prompt = Tokens[int]


class FixedBudget(StepBudget):
    """A budget that does not learn, so that a test is the same on every machine.

    Attributes:
        chunk: prompt tokens of a step.
        token_seconds: predicted cost of a prompt token: large makes parking worth it, 0 never.
    """

    def __init__(self, chunk: int = 64, token_seconds: float = 1e6) -> None:
        super().__init__(0.1, 10_000)
        self.chunk = chunk
        self.token_seconds = token_seconds

    def observe(self, prefill_tokens: int, decode_tokens: int, seconds: float) -> None:
        """Learn nothing."""

    def predict(self, prefill_tokens: int, decode_tokens: int) -> float:
        """Return the cost of the prompt tokens alone."""
        return prefill_tokens * self.token_seconds

    def prefill_tokens(self, decode_tokens: int) -> int:
        """Return the same for every step."""
        return self.chunk


class Job:
    """One request and what came back of it."""

    def __init__(self, prompt: Prompt, params: SamplingParams, limit: int, salt: str) -> None:
        self.prompt = list(prompt)
        self.params = params
        self.updates: list[SequenceUpdate] = []
        self.may_abort = False  # it was cancelled
        self.checked: set[int] = set()  # sequences whose end was found right
        self._tokens: list[list[int]] = [[] for _ in range(params.n)]
        self._endings: list[list[SequenceUpdate]] = [[] for _ in range(params.n)]
        self.request = GenerationRequest(
            prompt_token_ids=array("i", prompt),
            params=params,
            sink=self._receive,
            max_total_tokens=limit,
            cache_salt=salt,
        )

    def _receive(self, _: GenerationRequest, update: SequenceUpdate) -> None:
        assert not self._endings[update.index], "an update after the end"
        self.updates.append(update)
        self._tokens[update.index] += update.token_ids
        if update.finish_reason is not None:
            self._endings[update.index].append(update)

    def tokens(self, index: int = 0) -> list[int]:
        """Return the tokens of a sequence so far."""
        return self._tokens[index]

    def endings(self, index: int = 0) -> list[SequenceUpdate]:
        """Return the last update of a sequence, or nothing while it lives."""
        return self._endings[index]

    def reason(self, index: int = 0) -> str | None:
        """Return why a sequence ended, or None while it lives."""
        endings = self.endings(index)
        return endings[0].finish_reason if endings else None

    @property
    def is_finished(self) -> bool:
        """True when every sequence has ended."""
        return all(self.endings(index) for index in range(self.params.n))


class Harness:
    """Core, scheduler, ledger and fake memory without a thread."""

    def __init__(
        self,
        num_cells: int = 512,
        *,
        max_num_seqs: int = 4,
        chunk: int = 64,
        park: bool = True,
        can_cut: bool = True,
        max_ids: int = 256,
        vocab: FakeVocab | None = None,
        **config: object,
    ) -> None:
        self.vocab = vocab or FakeVocab()
        self.num_cells = num_cells
        self.runner = FakeRunner(num_cells, max_num_seqs, self.vocab, can_cut=can_cut)
        self.core = EngineCore(
            self.runner,
            EngineConfig(max_num_seqs=max_num_seqs, **config),  # type: ignore[arg-type]
            num_cells,
            self.vocab.eog_tokens,
            can_share=can_cut,
        )
        self.scheduler = self.core.scheduler
        self.budget = FixedBudget(chunk, 1e6 if park else 0.0)
        self.scheduler.budget = self.budget
        self.memory = self.runner.memory
        self.cache = KVCache(
            self.memory,
            num_cells,
            max_num_seqs,
            max_ids=max_ids,
            can_share=self.scheduler.cache.can_share,
        )
        self.scheduler.cache = self.cache
        self._schedule = self.scheduler.schedule
        self.scheduler.schedule = self._checked_schedule  # type: ignore[method-assign]
        self.jobs: list[Job] = []
        self._expected: dict[tuple[int, int], tuple[list[int], str]] = {}

    def add(
        self, prompt: Prompt, *, salt: str = "", limit: int | None = None, **params: object
    ) -> Job:
        """Submit a request as an engine does."""
        settings = SamplingParams(**params)  # type: ignore[arg-type]
        most = min(limit or self.num_cells, self.num_cells)
        if settings.max_tokens is not None:
            most = min(most, len(prompt) + settings.max_tokens)
        job = Job(prompt, settings, most, salt)
        self.core.inbox.reserve()
        self.core.inbox.submit(job.request)
        self.jobs.append(job)
        return job

    def cancel(self, job: Job, index: int | None = None) -> None:
        """Cancel a request, or one of its sequences."""
        job.may_abort = True
        self.core.inbox.cancel(Cancellation(job.request, index))

    def turn(self, count: int = 1) -> None:
        """Turn the core, checking everything after each turn."""
        for _ in range(count):
            self.core.turn()
            self.check()

    def drain(self, *, shortages: bool = False) -> int:
        """Turn until nothing is left to do and return how many turns that took.

        There is a bound: the oldest sequence gets at least one token further in every turn.

        Args:
            shortages: the memory has fewer cells than the ledger believes; not everything that
                is checked otherwise holds then.
        """
        turn = self.core.turn if shortages else self.turn
        turn()
        live = list(self.scheduler.sequences())
        limit = sum(sequence.request.max_total_tokens + 8 for sequence in live) + 8
        for count in range(1, limit):
            if self.core.inbox.is_empty and not self.scheduler.has_work:
                return count
            turn()
        raise AssertionError(f"no end after {limit} turns: {list(self.scheduler.sequences())}")

    def check_drained(self) -> None:
        """Assert that nothing is left of any request but cache."""
        assert all(job.is_finished for job in self.jobs)
        assert self.scheduler.park_budget.num_bytes == 0
        assert self.cache.num_evictable == self.cache.num_used == self.memory.num_used
        assert all(slot.seq_id > self.cache.max_active for slot in self.slots())
        inbox = self.core.inbox
        assert (inbox.num_requests, inbox.num_waiting, inbox.num_tokens) == (0, 0, 0)
        self.cache.ensure_free(self.num_cells)
        assert self.memory.num_used == 0
        assert not self.slots()

    def sequence(self, job: Job, index: int = 0) -> Sequence:
        """Return the live sequence of a request."""
        return next(
            s for s in self.scheduler.sequences() if s.request is job.request and s.index == index
        )

    def last_plan(self) -> dict[tuple[int, int], tuple[int, int]]:
        """Return (request id, index) -> (start, count) of the newest step, in batch order."""
        return {(rid, index): (start, count) for rid, index, start, count in self.runner.plans[-1]}

    def expected(self, job: Job, index: int = 0) -> tuple[list[int], str]:
        """Return what the fake model says to a request: tokens and finish reason."""
        key = (job.request.request_id, index)
        if key not in self._expected:
            limit = job.request.max_total_tokens
            answer = expected_tokens(job.prompt, job.params, limit, self.vocab, index)
            self._expected[key] = answer
        return self._expected[key]

    def _checked_schedule(self) -> BatchPlan:
        before = list(self.scheduler.waiting)
        plan = self._schedule()
        running = self.scheduler.running
        in_plan = [rows.sequence for rows in plan.rows]
        decodes = [rows.sequence for rows in plan.rows if rows.is_decode]
        assert in_plan[: len(decodes)] == decodes, "decodes come first"
        assert decodes == [s for s in running if s.status is SequenceStatus.DECODE]
        assert not running or running[0] in in_plan, "the oldest must get on"
        assert plan.num_tokens - len(decodes) <= self.budget.chunk
        assert plan.num_tokens <= self.cache.num_free, "no room was made"
        admitted = [s for s in before if s in running]
        for sequence in self.scheduler.waiting:
            overtakes = any(sequence.priority < other.priority for other in admitted)
            assert not overtakes or self._has_leader(sequence), "not first come, first served"
        return plan

    def _has_leader(self, sequence: Sequence) -> bool:
        return any(
            leader.status is SequenceStatus.PREFILL
            and leader.request.cache_salt == sequence.request.cache_salt
            and leader.tokens[:1] == sequence.tokens[:1]
            for leader in self.scheduler.running
        )

    def check(self) -> None:
        """Assert everything that must hold between two turns."""
        self._check_ledger()
        self._check_memory()
        self._check_outputs()
        self._check_states()

    def _check_ledger(self) -> None:
        tree = self.cache.tree
        nodes = list(tree.nodes())
        assert tree.num_cells == sum(len(node.tokens) for node in nodes)
        assert tree.num_idle == sum(len(n.tokens) for n in nodes if n.num_active == 0)
        for node in nodes:
            below = len(node.slots) + sum(child.num_paths for child in node.children.values())
            assert node.num_paths == below > 0
            assert node.slots or len(node.children) > 1, "a node for nothing"
        assert 0 <= self.cache.num_used <= self.num_cells
        assert self.cache.num_evictable == tree.num_idle

    def _check_memory(self) -> None:
        assert self.runner.num_shortages == 0, "the ledger promised cells that are not there"
        assert self.cache.num_used == self.memory.num_used
        slots = self.slots()
        ids = [slot.seq_id for slot in slots]
        assert len(ids) == len(set(ids)), "an id is used twice"
        assert self.memory.owners() <= set(ids), "cells that nobody in the ledger owns"
        for slot in slots:
            assert self.memory.tokens(slot.seq_id) == slot_tokens(slot)
        for sequence in self.scheduler.running:
            assert sequence.slot is not None
            assert slot_tokens(sequence.slot) == list(sequence.tokens[: sequence.num_computed])

    def slots(self) -> list[Slot]:
        """Return every slot of the ledger."""
        tree = self.cache.tree
        in_tree = {slot: None for node in tree.nodes() for slot in node.slots}
        running = {s.slot: None for s in self.scheduler.running if s.slot is not None}
        return list(in_tree | running)

    def _check_states(self) -> None:
        scheduler = self.scheduler
        live = list(scheduler.sequences())
        assert len({id(sequence) for sequence in live}) == len(live)
        places = {
            SequenceStatus.WAITING: scheduler.waiting,
            SequenceStatus.PARKED: scheduler.parked,
            SequenceStatus.PREFILL: scheduler.running,
            SequenceStatus.DECODE: scheduler.running,
        }
        for sequence in live:
            assert sequence in places[sequence.status]
            assert (sequence.slot is not None) == (sequence in scheduler.running)
            assert (sequence.parked is not None) == (sequence in scheduler.parked)
        for place in (scheduler.waiting, scheduler.running, scheduler.parked):
            assert place == sorted(place, key=lambda sequence: sequence.priority)
        parked = [len(s.parked.state) for s in scheduler.parked if s.parked is not None]
        assert sum(parked) == scheduler.park_budget.num_bytes <= scheduler.park_budget.max_bytes
        expected = {(s.request.request_id, s.index) for s in live}
        ended = {(j.request.request_id, i) for j in self.jobs for i in j.checked}
        assert not expected & ended
        self._check_inbox()

    def _check_inbox(self) -> None:
        inbox = self.core.inbox
        if inbox.is_empty:
            unfinished = [job for job in self.jobs if not job.is_finished]
            assert inbox.num_requests == len(unfinished)
            fresh = {
                s.request.request_id: len(s.request.prompt_token_ids)
                for s in self.scheduler.sequences()
                if s.times.first_step is None
            }
            begun = {
                s.request.request_id
                for s in self.scheduler.sequences()
                if s.times.first_step is not None
            }
            # A request leaves the queue with the first of its sequences.
            waiting = {rid: n for rid, n in fresh.items() if rid not in begun}
            assert inbox.num_tokens <= sum(fresh.values())
            assert inbox.num_waiting <= len(fresh)
            if all(job.params.n == 1 for job in self.jobs):
                assert inbox.num_tokens == sum(waiting.values())
                assert inbox.num_waiting == len(waiting)

    def _check_outputs(self) -> None:
        for job in self.jobs:
            for index in set(range(job.params.n)) - job.checked:
                tokens, reason = self.expected(job, index)
                given = job.tokens(index)
                assert given == tokens[: len(given)], "not what the model says"
                if job.endings(index):
                    self._check_ending(job, index, given == tokens and reason)
                    job.checked.add(index)

    def _check_ending(self, job: Job, index: int, whole: str | bool) -> None:
        (ending,) = job.endings(index)
        if ending.finish_reason == "error":
            is_victim = (job.request.request_id, index) in self.runner.victims
            is_late = job.request.deadline is not None and isinstance(
                ending.error, DeadlineExceededError
            )
            is_timeout = isinstance(ending.error, QueueTimeoutError)
            assert is_victim or is_late or is_timeout, ending.error
        elif ending.finish_reason == "abort":
            assert job.may_abort
        else:
            assert ending.finish_reason == whole, "an end too early or too late"


def slot_tokens(slot: Slot) -> list[int]:
    """Return the tokens that the ledger says a slot has."""
    runs = [list(node.tokens) for node in slot.node.path()]
    return [token for run in reversed(runs) for token in run] + list(slot.tail)
