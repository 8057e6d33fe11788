"""ModelRunner: carries a BatchPlan out on llama.cpp. The only engine file that computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from avllm.config import EngineConfig
from avllm.engine.batch_plan import BatchPlan, Rows, Sampled
from avllm.engine.memory import Memory
from avllm.errors import EngineStoppedError
from avllm.llama import Batch, Context, DecodeStatus, Model, Sampler, sample_rows


@dataclass(slots=True)
class StepResult:
    """What a step gave.

    Attributes:
        status: OK, NO_KV_SLOT (nothing was computed) or ABORTED (some of it may have been).
        sampled: one entry per ``plan.rows``; None where no token was wanted.
        decode_seconds: time inside ``llama_decode``.
    """

    status: DecodeStatus
    sampled: list[Sampled | None]
    decode_seconds: float


class Runner(Protocol):
    """What the engine needs of a backend; the fake one of the tests has the same."""

    memory: Memory

    def start(self) -> None: ...
    def run(self, plan: BatchPlan) -> StepResult: ...
    def request_abort(self) -> None: ...
    def close(self) -> None: ...


class ModelRunner:
    """Computes steps on a model.

    Made on any thread, used on the engine thread, save for ``request_abort``.

    Args:
        model: the loaded model.
        config: budgets.
        num_cells: cells of the KV cache.

    Raises:
        ModelLoadError: there is not enough memory for the cache.
    """

    def __init__(self, model: Model, config: EngineConfig, num_cells: int, threads: int) -> None:
        self.num_threads = threads
        self._context: Context | None = Context(
            model,
            n_ctx=num_cells,
            n_batch=min(config.max_num_batched_tokens, num_cells),
            n_seq_max=config.max_num_seqs + 1,  # one more to save sequences through
            num_threads=threads,
            cell_type=config.kv_cache_type,
        )
        self.memory: Memory = self.context
        self._batch = Batch(self.context.n_batch)

    @property
    def context(self) -> Context:
        """The KV cache and what computes on it.

        Raises:
            EngineStoppedError: the runner is closed.
        """
        if self._context is None:
            raise EngineStoppedError("The engine is closed.")
        return self._context

    def start(self) -> None:
        """Prepare the calling thread for steps."""
        self.context.attach_threadpool()

    def run(self, plan: BatchPlan) -> StepResult:
        """Compute a step and sample its tokens.

        Raises:
            DecodeError: llama.cpp could not compute it.
        """
        batch = self._batch
        batch.clear()
        ends = [self._add(rows) for rows in plan.rows]
        before = self.context.decode_seconds
        status = self.context.decode(batch)
        decode_seconds = self.context.decode_seconds - before
        if status is not DecodeStatus.OK:
            return StepResult(status, [], decode_seconds)
        return StepResult(status, self._sample(plan, ends), decode_seconds)

    def request_abort(self) -> None:
        """Make the running step end early. Any thread."""
        context = self._context  # the engine thread may be closing
        if context is not None:
            context.request_abort()

    def close(self) -> None:
        """Free the context, once every view of it is gone."""
        self._context = None
        del self.memory

    def _add(self, rows: Rows) -> int:
        slot = rows.sequence.slot
        assert slot is not None
        return self._batch.extend(
            rows.sequence.tokens, rows.start, rows.count, slot.seq_id, rows.wants_token
        )

    def _sample(self, plan: BatchPlan, ends: list[int]) -> list[Sampled | None]:
        wanted = [i for i, rows in enumerate(plan.rows) if rows.wants_token]
        samplers = [self._sampler(plan.rows[i]) for i in wanted]
        answers = sample_rows(self.context, samplers, [ends[i] for i in wanted], self.num_threads)
        sampled: list[Sampled | None] = [None] * len(plan.rows)
        for i, answer in zip(wanted, answers, strict=True):
            if isinstance(answer, int):
                sampled[i] = Sampled(answer)
            else:
                sampled[i] = Sampled(answer[0], answer)
        return sampled

    def _sampler(self, rows: Rows) -> Sampler:
        sequence = rows.sequence
        if sequence.sampler is None:
            params = sequence.request.params
            sequence.sampler = Sampler(params, self.context.n_vocab, sequence.index)
            if params.repeat_penalty != 1.0:
                sequence.sampler.accept_prompt(sequence.request.prompt_token_ids)
        sampler: Sampler = sequence.sampler
        return sampler
