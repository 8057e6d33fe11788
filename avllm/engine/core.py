"""EngineCore: the engine thread and its life; how other threads reach it.

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
from avllm.engine.inbox import Inbox
from avllm.engine.kv_cache import KVCache
from avllm.engine.metrics import EngineMetrics
from avllm.engine.model_runner import Runner
from avllm.engine.reporter import Reporter
from avllm.engine.request import Cancellation, GenerationRequest
from avllm.engine.scheduler import Scheduler
from avllm.engine.step_budget import StepBudget
from avllm.engine.stepper import Stepper
from avllm.errors import AvllmError, EngineStoppedError

logger = logging.getLogger("avllm.engine")

Status = Literal["ready", "stopping", "stopped", "failed"]
_IDLE_SECONDS = 0.5


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
        budget = StepBudget(config.itl_target_ms / 1000, config.max_num_batched_tokens)
        cache = KVCache(
            runner.memory,
            num_cells,
            config.max_num_seqs,
            can_share=can_share and config.prefix_cache,
        )
        scheduler = Scheduler(cache, budget, config.park_memory_mib * 2**20)
        self._reporter = Reporter(self.inbox, self.metrics)
        self._stepper = Stepper(runner, scheduler, self._reporter, self.metrics, eog_tokens)
        self._heartbeat = time.monotonic()
        self._stop_at: float | None = None
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._main, name="avllm-engine", daemon=True)

    def start(self) -> None:
        """Start the engine thread. Once."""
        self._thread.start()

    @property
    def scheduler(self) -> Scheduler:
        """The scheduler, to be looked at on the engine thread."""
        return self._stepper.scheduler

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
        self._reporter.add_flusher(key, flush)

    def remove_flusher(self, key: object) -> None:
        """Undo ``add_flusher``."""
        self._reporter.remove_flusher(key)

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
            if self.status == "stopping":  # set just after the thread had ended by itself
                self.status = "stopped"

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
        self._receive(wait_seconds)
        self._heartbeat = time.monotonic()
        self._stepper.expire(self.inbox.retry_after)
        if self.scheduler.has_work:
            self._stepper.step()
        self._stepper.gauge()
        self._reporter.flush()

    def _is_over(self) -> bool:
        if self._stop_at is None:
            return False
        is_idle = self._reporter.is_idle and self.inbox.is_empty
        return is_idle or time.monotonic() >= self._stop_at

    def _receive(self, wait_seconds: float) -> None:
        for message in self.inbox.drain(wait_seconds):
            if isinstance(message, GenerationRequest):
                self._stepper.accept(message)
            else:
                self._stepper.cancel(message)

    def _give_up(self, error: AvllmError) -> None:
        # Not through the scheduler: after a failure it may contradict itself.
        self._receive(0)
        for sequence in self._reporter.live_sequences():
            self._reporter.ended(sequence, "error", error=error)
        self._reporter.flush()
