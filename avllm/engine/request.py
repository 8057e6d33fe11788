"""What crosses the border between callers and the engine thread: plain data, nothing shared back.

Down go GenerationRequest and cancellations; up come SequenceUpdates, one list a step.
"""

from __future__ import annotations

import itertools
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field

from avllm.engine.sequence_times import SequenceTimes
from avllm.errors import AvllmError
from avllm.outputs import FinishReason
from avllm.sampling_params import SamplingParams

_ids = itertools.count(1)

# Token id, logprob, and (id, logprob) of the alternatives.
RawLogprob = tuple[int, float, list[tuple[int, float]]]


@dataclass(slots=True)
class SequenceUpdate:
    """What one step did to one sequence.

    Attributes:
        index: which of the request's n sequences.
        token_ids: new text tokens; end-of-generation and stop tokens are not among them.
        logprobs: one per token id, when the request asked for them.
        finish_reason: set on the last update of a sequence.
        stop_reason: the stop token id that ended it, if one did.
        num_generated: tokens sampled so far, the end token included.
        cached_tokens: prompt tokens that were found in the KV cache.
        times: marks of what the sequence experienced; they move on while it runs.
        error: set with finish_reason "error".
    """

    index: int
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[RawLogprob, ...] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | None = None
    num_generated: int = 0
    cached_tokens: int = 0
    times: SequenceTimes | None = None
    error: AvllmError | None = None


# Takes the updates of one step for one request; called on the engine thread, must not block.
UpdateSink = Callable[["GenerationRequest", SequenceUpdate], None]


@dataclass(slots=True, eq=False)
class GenerationRequest:
    """One accepted request.

    Attributes:
        prompt_token_ids: the prompt, int32.
        params: how to sample; ``params.n`` sequences come of it.
        sink: where its updates go.
        max_total_tokens: longest a sequence may become, prompt included.
        cache_salt: requests share cached prefixes only with equal salts.
        arrival: ``time.perf_counter()`` of the submission.
        deadline: ``time.perf_counter()`` after which it is given up, or None.
        queue_deadline: the same for its wait in the queue.
    """

    prompt_token_ids: array[int]
    params: SamplingParams
    sink: UpdateSink
    max_total_tokens: int
    cache_salt: str = ""
    arrival: float = field(default_factory=time.perf_counter)
    deadline: float | None = None
    queue_deadline: float | None = None
    request_id: int = field(default_factory=lambda: next(_ids))


@dataclass(frozen=True, slots=True)
class Cancellation:
    """Take a request (or one of its sequences) out of wherever it is."""

    request: GenerationRequest
    index: int | None = None
