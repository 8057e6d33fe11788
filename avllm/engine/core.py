"""EngineCore: the engine thread. Drains the inbox, steps the scheduler, hands tokens out.

Knows token ids only: text, templates and stop strings belong to the callers' threads.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Literal

from avllm.config import EngineConfig
from avllm.engine.batch_plan import BatchPlan, Rows, Sampled
from avllm.engine.inbox import Inbox
from avllm.engine.kv_cache import KVCache
from avllm.engine.metrics import EngineMetrics
from avllm.engine.model_runner import Runner, StepResult
from avllm.engine.request import Cancellation, GenerationRequest, SequenceUpdate
from avllm.engine.scheduler import Scheduler
from avllm.engine.sequence import Sequence, SequenceStatus
from avllm.engine.step_budget import StepBudget
from avllm.errors import (
    AvllmError,
    DecodeError,
    EngineError,
    EngineStoppedError,
    QueueTimeoutError,
)
from avllm.llama import DecodeStatus
from avllm.outputs import FinishReason

logger = logging.getLogger("avllm.engine")

Status = Literal["ready", "stopping", "stopped", "failed"]
_IDLE_SECONDS = 0.5
_INVALID_BATCH = -1  # of llama_decode: nothing was computed
# How often a sequence that runs alone may lack cells without getting a token further.
_TRIES_ALONE = 3
_RUNNING = (SequenceStatus.PREFILL, SequenceStatus.DECODE)


class EngineCore:
    """One thread that owns every sequence and every C object of an engine.

    ``submit``, ``cancel`` and ``close`` may be called from any thread; everything else runs on
    the engine thread, which ``start`` starts.

    Args:
        runner: computes steps.
        config: budgets.
        num_cells: cells of the KV cache.
        eog_tokens: ids that end a sequence.
        can_share: whether sequences may share cells (see KVCache).
    """

    def __init__(
        self,
        runner: Runner,
        config: EngineConfig,
        num_cells: int,
        eog_tokens: frozenset[int],
        *,
        can_share: bool = True,
    ) -> None:
        self.config = config
        self.status: Status = "ready"
        self.metrics = EngineMetrics()
        self.metrics.kv_cells_total = num_cells
        self.inbox = Inbox(
            config.max_num_seqs + config.max_queued_requests, config.max_queued_tokens
        )
        self._runner = runner
        self._eog_tokens = eog_tokens
        budget = StepBudget(config.itl_target_ms / 1000, config.max_num_batched_tokens)
        cache = KVCache(
            runner.memory,
            num_cells,
            config.max_num_seqs,
            can_share=can_share and config.prefix_cache,
        )
        self.scheduler = Scheduler(cache, budget, config.park_memory_mib * 2**20)
        self._live: dict[int, list[Sequence]] = {}
        self._queued: set[int] = set()  # requests none of whose sequences has run
        self._flushers: dict[object, Callable[[], None]] = {}
        self._heartbeat = time.monotonic()
        self._stop_at: float | None = None
        self._pid = os.getpid()
        # The sequence for which llama.cpp last found no cells though it ran alone, and its length.
        self._refused: tuple[Sequence, int] | None = None
        self._num_refused = 0
        self._thread = threading.Thread(target=self._main, name="avllm-engine", daemon=True)

    def start(self) -> None:
        """Start the engine thread. Once."""
        self._thread.start()

    # -- any thread ----------------------------------------------------------------------------

    @property
    def heartbeat_age(self) -> float:
        """Seconds since the engine thread last turned its loop."""
        return time.monotonic() - self._heartbeat

    def check_process(self) -> None:
        """Raise EngineStoppedError in a fork of the process that made the engine."""
        if os.getpid() != self._pid:
            raise EngineStoppedError(
                "This engine belongs to the parent process: its threads did not come along with "
                "the fork. Make the Engine after forking, or use the spawn start method."
            )

    def submit(self, request: GenerationRequest) -> None:
        """Accept a request for which ``inbox.reserve`` took a place.

        Raises:
            EngineOverloadedError: too many prompt tokens wait.
            EngineStoppedError: the engine is closing or closed.
        """
        self.check_process()
        self.inbox.submit(request)

    def cancel(self, request: GenerationRequest, index: int | None = None) -> None:
        """End a request, or one of its sequences, before the next step."""
        if os.getpid() == self._pid:
            self.inbox.cancel(Cancellation(request, index))

    def add_flusher(self, key: object, flush: Callable[[], None]) -> None:
        """Call ``flush`` once after each step; sinks use it to wake a consumer once a step."""
        self._flushers[key] = flush

    def remove_flusher(self, key: object) -> None:
        """Undo ``add_flusher``."""
        self._flushers.pop(key, None)

    def close(self, grace_seconds: float = 0.0) -> None:
        """Refuse new requests, let running ones end within the grace, stop. Idempotent."""
        if os.getpid() != self._pid:
            return
        if not self._thread.is_alive():
            return
        self.inbox.close("The engine is stopping.")
        self.status = "stopping"
        self._stop_at = time.monotonic() + grace_seconds
        if grace_seconds <= 0:
            self._runner.request_abort()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # -- engine thread -------------------------------------------------------------------------

    def _main(self) -> None:
        reason = "The engine is closed."
        try:
            self._runner.start()
            self._loop()
            self.status = "stopped"
        except BaseException as error:
            logger.exception("the engine thread failed")
            self.status = "failed"
            reason = f"The engine failed: {error!r}"
        finally:
            self.inbox.close(reason)
            self._give_up(EngineStoppedError(reason))
            self.scheduler.cache.memory = None  # type: ignore[assignment]  # frees the context
            self._runner.close()

    def _loop(self) -> None:
        while not self._is_over():
            self.turn(0 if self.scheduler.has_work else _IDLE_SECONDS)

    def turn(self, wait_seconds: float = 0) -> None:
        """One turn of the loop: messages, deadlines, a step, wake-ups.

        Args:
            wait_seconds: how long to wait for a message when there is none.
        """
        for message in self.inbox.drain(wait_seconds):
            self._receive(message)
        self._heartbeat = time.monotonic()
        self._expire()
        if self.scheduler.has_work:
            self.step()
        self._gauge()
        self._flush()

    def _is_over(self) -> bool:
        if self._stop_at is None:
            return False
        is_idle = not self._live and self.inbox.is_empty
        return is_idle or time.monotonic() >= self._stop_at

    def _receive(self, message: GenerationRequest | Cancellation) -> None:
        if isinstance(message, GenerationRequest):
            self._live[message.request_id] = self.scheduler.add(message)
            self._queued.add(message.request_id)
            return
        for sequence in list(self._live.get(message.request.request_id, ())):
            if message.index is None or sequence.index == message.index:
                self._finish(sequence, "abort")

    def _expire(self) -> None:
        now = time.perf_counter()
        for sequence in list(self.scheduler.sequences()):
            request = sequence.request
            queued = sequence.times.first_step is None
            if request.deadline is not None and now >= request.deadline:
                self._finish(sequence, "abort")
            elif queued and request.queue_deadline is not None and now >= request.queue_deadline:
                waited = now - request.arrival
                message = f"The request waited {waited:.0f} s in the queue."
                self._fail(sequence, QueueTimeoutError(message, self.inbox.retry_after()))

    def step(self) -> None:
        """Schedule, compute, hand out: one turn of continuous batching."""
        started = time.perf_counter()
        plan = self.scheduler.schedule()
        self._count_admitted(plan)
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
        self._mark_token(sequence)
        params = sequence.request.params
        if sampled.token in params.stop_token_ids:
            self._finish(sequence, "stop", stop_reason=sampled.token)
        elif sampled.token in self._eog_tokens and not params.ignore_eos:
            self._finish(sequence, "stop")
        else:
            self._emit_token(sequence, sampled)

    def _emit_token(self, sequence: Sequence, sampled: Sampled) -> None:
        length = len(sequence.tokens)
        params = sequence.request.params
        ended = length >= sequence.request.max_total_tokens or (
            params.max_tokens is not None and sequence.num_generated >= params.max_tokens
        )
        logprobs = None if sampled.logprob is None else (sampled.logprob,)
        if ended:
            self._finish(sequence, "length", token_ids=(sampled.token,), logprobs=logprobs)
        else:
            self._emit(
                sequence,
                SequenceUpdate(
                    sequence.index,
                    (sampled.token,),
                    logprobs,
                    num_generated=sequence.num_generated,
                    cached_tokens=sequence.cached_tokens,
                ),
            )

    def _mark_token(self, sequence: Sequence) -> None:
        now = time.perf_counter()
        times, metrics = sequence.times, self.metrics
        metrics.generation_tokens += 1
        if times.first_token is None:
            times.first_token = now
            metrics.ttft_seconds.observe(now - times.arrival)
        elif times.last_token is not None:
            metrics.inter_token_seconds.observe(now - times.last_token)
        times.last_token = now

    # -- endings -------------------------------------------------------------------------------

    def _finish(
        self,
        sequence: Sequence,
        reason: FinishReason,
        *,
        keep: bool = True,
        error: AvllmError | None = None,
        **update: object,
    ) -> None:
        self.scheduler.finish(sequence, keep=keep)
        self._conclude(sequence, reason, error=error, **update)

    def _conclude(self, sequence: Sequence, reason: FinishReason, **update: object) -> None:
        # The last update of a sequence that the scheduler does not know any more.
        request = sequence.request
        live = self._live[request.request_id]
        live.remove(sequence)
        if not live:
            del self._live[request.request_id]
            self.inbox.release(has_ended=True)
            self._leave_queue(request)
        self.metrics.count_finished(reason)
        self.metrics.e2e_seconds.observe(time.perf_counter() - request.arrival)
        self._emit(
            sequence,
            SequenceUpdate(
                sequence.index,
                finish_reason=reason,
                num_generated=sequence.num_generated,
                cached_tokens=sequence.cached_tokens,
                timings=sequence.times.timings(),
                **update,  # type: ignore[arg-type]
            ),
        )

    def _fail(self, sequence: Sequence, error: AvllmError) -> None:
        self._finish(sequence, "error", keep=False, error=error)

    def _give_up(self, error: AvllmError) -> None:
        # Not through the scheduler: after a failure it may contradict itself.
        for message in self.inbox.drain(0):
            self._receive(message)
        for sequences in list(self._live.values()):
            for sequence in list(sequences):
                self._conclude(sequence, "error", error=error)
        self._flush()

    # -- trouble -------------------------------------------------------------------------------

    def _handle(self, error: DecodeError, plan: BatchPlan) -> None:
        if error.status == _INVALID_BATCH and len(plan.rows) > 1:
            self._isolate(plan)
            return
        logger.error("a step failed, %d sequences end: %s", len(plan.rows), error)
        for rows in plan.rows:
            self._fail(rows.sequence, error)
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

    def _leave_queue(self, request: GenerationRequest) -> None:
        if request.request_id in self._queued:
            self._queued.discard(request.request_id)
            self.inbox.leave_queue(request)

    def _count_admitted(self, plan: BatchPlan) -> None:
        for sequence in plan.admitted:
            assert sequence.times.first_step is not None
            self._leave_queue(sequence.request)
            self.metrics.cached_tokens += sequence.cached_tokens
            self.metrics.queue_seconds.observe(sequence.times.first_step - sequence.times.arrival)

    def _account(self, plan: BatchPlan, started: float, decode_seconds: float) -> None:
        seconds = time.perf_counter() - started
        decodes = plan.num_decodes
        prefill = plan.num_tokens - decodes
        self.scheduler.budget.observe(prefill, decodes, seconds)
        metrics = self.metrics
        metrics.observe_step(plan.num_tokens, prefill, decodes, decode_seconds, seconds)

    def _gauge(self) -> None:
        metrics, scheduler = self.metrics, self.scheduler
        metrics.running = len(scheduler.running)
        metrics.parked = len(scheduler.parked)
        metrics.waiting = len(scheduler.waiting)
        metrics.preemptions = scheduler.num_preemptions
        metrics.kv_cells_cached = scheduler.cache.num_evictable
        metrics.kv_cells_used = scheduler.cache.num_used - metrics.kv_cells_cached

    def _emit(self, sequence: Sequence, update: SequenceUpdate) -> None:
        sequence.request.sink(sequence.request, update)

    def _flush(self) -> None:
        for flush in list(self._flushers.values()):
            flush()
