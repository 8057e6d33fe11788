"""Stepper: one step after the other: schedule, compute, give each sequence its token.

Knows neither threads nor callers: messages come in through its methods, and what became of a
sequence goes out through the Reporter.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from avllm.engine.batch_plan import BatchPlan, Rows, Sampled
from avllm.engine.metrics import EngineMetrics
from avllm.engine.model_runner import Runner, StepResult
from avllm.engine.reporter import Reporter
from avllm.engine.request import Cancellation, GenerationRequest
from avllm.engine.scheduler import Scheduler
from avllm.engine.sequence import Sequence, SequenceStatus
from avllm.errors import (
    AvllmError,
    DeadlineExceededError,
    DecodeError,
    EngineError,
    QueueTimeoutError,
)
from avllm.llama import DecodeStatus
from avllm.outputs import FinishReason

logger = logging.getLogger("avllm.engine")

_INVALID_BATCH = -1  # of llama_decode: nothing was computed
# How often a sequence that runs alone may lack cells without getting a token further.
_TRIES_ALONE = 3
_RUNNING = (SequenceStatus.PREFILL, SequenceStatus.DECODE)


class Stepper:
    """Continuous batching: turns accepted requests into steps.

    Owned by the engine thread.

    Args:
        runner: computes steps.
        scheduler: decides them.
        reporter: tells the callers.
        metrics: where the figures of steps go.
        eog_tokens: ids that end a sequence.
    """

    def __init__(
        self,
        runner: Runner,
        scheduler: Scheduler,
        reporter: Reporter,
        metrics: EngineMetrics,
        eog_tokens: frozenset[int],
    ) -> None:
        self.scheduler = scheduler
        self._runner = runner
        self._reporter = reporter
        self._metrics = metrics
        self._eog_tokens = eog_tokens
        # The sequence for which llama.cpp last found no cells though it ran alone, and its length.
        self._refused: tuple[Sequence, int] | None = None
        self._num_refused = 0

    def accept(self, request: GenerationRequest) -> None:
        """Put a request into the queue."""
        self._reporter.accepted(request, self.scheduler.add(request))

    def cancel(self, cancellation: Cancellation) -> None:
        """End what is cancelled, in whatever state it is."""
        for sequence in self._reporter.live_sequences(cancellation.request):
            if cancellation.index is None or sequence.index == cancellation.index:
                self._finish(sequence, "abort")

    def expire(self, retry_after: Callable[[], float]) -> None:
        """End what is past its deadline; a queue timeout tells when to come back."""
        now = time.perf_counter()
        for sequence in list(self.scheduler.sequences()):
            request = sequence.request
            queued = sequence.times.first_step is None
            if request.deadline is not None and now >= request.deadline:
                allowed = request.deadline - request.arrival
                message = f"The request was not complete within its deadline of {allowed:g} s."
                self._fail(sequence, DeadlineExceededError(message))
            elif queued and request.queue_deadline is not None and now >= request.queue_deadline:
                waited = now - request.arrival
                message = f"The request waited {waited:.0f} s in the queue."
                self._fail(sequence, QueueTimeoutError(message, retry_after()))

    def step(self) -> None:
        """Schedule, compute, hand out: one turn of continuous batching."""
        started = time.perf_counter()
        plan = self.scheduler.schedule()
        for sequence in plan.admitted:
            self._reporter.admitted(sequence)
        if not plan.rows:
            return
        try:
            result = self._runner.run(plan)
        except DecodeError as error:
            self._handle(error, plan)
            return
        if result.status is DecodeStatus.OK:
            self._advance_all(plan, result)
            self._account(plan, started, result.decode_seconds)
        elif result.status is DecodeStatus.ABORTED:
            for rows in plan.rows:
                self.scheduler.rollback(rows.sequence)
        else:
            self._no_slot(plan)

    def _advance_all(self, plan: BatchPlan, result: StepResult) -> None:
        for rows, sampled in zip(plan.rows, result.sampled, strict=True):
            self._advance(rows, sampled)

    def _advance(self, rows: Rows, sampled: Sampled | None) -> None:
        sequence = rows.sequence
        self.scheduler.computed(rows)
        sequence.times.steps += 1
        if sampled is not None:
            self._append(sequence, sampled)
        elif sequence.status is SequenceStatus.DECODE:  # max_tokens=0: only the prompt
            self._finish(sequence, "length")

    def _append(self, sequence: Sequence, sampled: Sampled) -> None:
        if sampled.token < 0:
            self._fail(
                sequence,
                EngineError("No token is left to choose from: the model gave no finite logits."),
            )
            return
        sequence.tokens.append(sampled.token)
        self._reporter.sampled(sequence)
        params = sequence.request.params
        if sampled.token in params.stop_token_ids:
            self._finish(sequence, "stop", stop_reason=sampled.token)
        elif sampled.token in self._eog_tokens and not params.ignore_eos:
            self._finish(sequence, "stop")
        elif self._is_full(sequence):
            logprobs = None if sampled.logprob is None else (sampled.logprob,)
            self._finish(sequence, "length", token_ids=(sampled.token,), logprobs=logprobs)
        else:
            self._reporter.token(sequence, sampled)

    @staticmethod
    def _is_full(sequence: Sequence) -> bool:
        max_tokens = sequence.request.params.max_tokens
        return len(sequence.tokens) >= sequence.request.max_total_tokens or (
            max_tokens is not None and sequence.num_generated >= max_tokens
        )

    def _finish(
        self,
        sequence: Sequence,
        reason: FinishReason,
        *,
        keep: bool = True,
        **update: object,
    ) -> None:
        self.scheduler.finish(sequence, keep=keep)
        self._reporter.ended(sequence, reason, **update)

    def _fail(self, sequence: Sequence, error: AvllmError) -> None:
        self._finish(sequence, "error", keep=False, error=error)

    # -- trouble -------------------------------------------------------------------------------

    def _handle(self, error: DecodeError, plan: BatchPlan) -> None:
        if error.status == _INVALID_BATCH and len(plan.rows) > 1:
            self._isolate(plan)
            return
        logger.error("a step failed, %d sequences end: %s", len(plan.rows), error)
        for rows in plan.rows:  # an exception of its own for each: callers raise them
            self._fail(rows.sequence, DecodeError(str(error), error.status))
        if error.status != _INVALID_BATCH:
            # Cells that a failed step wrote cannot be trusted: the others start over.
            self.scheduler.reset_running()

    def _isolate(self, plan: BatchPlan) -> None:
        # Nothing was computed: sequence by sequence, the one that llama.cpp refuses shows.
        for rows in plan.rows:
            if rows.sequence.status not in _RUNNING:
                continue  # the memory was lost with an earlier one: it starts over
            alone = BatchPlan([rows])
            try:
                result = self._runner.run(alone)
            except DecodeError as error:
                self._handle(error, alone)
                continue
            if result.status is DecodeStatus.OK:
                self._advance_all(alone, result)
            else:
                self.scheduler.rollback(rows.sequence)

    def _no_slot(self, plan: BatchPlan) -> None:
        # The ledger says there is room and llama.cpp does not find it.
        logger.warning("llama.cpp found no cells for %d rows", plan.num_tokens)
        if self.scheduler.give_way():
            return
        (sequence,) = self.scheduler.running
        refused = (sequence, len(sequence.tokens))
        self._num_refused = self._num_refused + 1 if self._refused == refused else 1
        self._refused = refused
        if self._num_refused < _TRIES_ALONE:
            self.scheduler.reset_running()  # cleared memory and the ledger agree again
        else:
            error = DecodeError("The KV cache has no room for it.", DecodeStatus.NO_KV_SLOT)
            self._fail(sequence, error)

    # -- figures -------------------------------------------------------------------------------

    def _account(self, plan: BatchPlan, started: float, decode_seconds: float) -> None:
        seconds = time.perf_counter() - started
        decodes = plan.num_decodes
        prefill = plan.num_tokens - decodes
        self.scheduler.budget.observe(prefill, decodes, seconds)
        self._metrics.observe_step(plan.num_tokens, prefill, decodes, decode_seconds, seconds)

    def gauge(self) -> None:
        """Bring the gauges up to date."""
        metrics, scheduler = self._metrics, self.scheduler
        metrics.running = len(scheduler.running)
        metrics.parked = len(scheduler.parked)
        metrics.waiting = len(scheduler.waiting)
        metrics.preemptions = scheduler.num_preemptions
        metrics.kv_cells_cached = scheduler.cache.num_evictable
        metrics.kv_cells_used = scheduler.cache.num_used - metrics.kv_cells_cached
