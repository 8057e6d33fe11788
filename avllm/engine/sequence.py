"""Sequence: one token stream of a request, from the queue to its end."""

from __future__ import annotations

import enum
from array import array
from typing import TYPE_CHECKING, Any

from avllm.engine.request import GenerationRequest
from avllm.engine.sequence_times import SequenceTimes

if TYPE_CHECKING:
    from avllm.engine.slot import ParkedState, Slot


class SequenceStatus(enum.Enum):
    """Where a sequence is; it is in exactly one of these and FINISHED once."""

    WAITING = "waiting"
    PREFILL = "prefill"
    DECODE = "decode"
    PARKED = "parked"
    FINISHED = "finished"


class Sequence:
    """One token stream: prompt and generated tokens, its place in the cache, its status.

    Owned by the engine thread.

    Attributes:
        request: what it belongs to.
        index: which of the request's n sequences.
        tokens: prompt and generated token ids, int32; all but the newest are in the cache while
            it decodes.
        slot: its place in the KV cache while it runs, else None.
        parked: its saved memory while it is parked with one.
        sampler: its sampling state, made when it first runs.
        cached_tokens: prompt tokens found in the cache when it was first admitted.
    """

    __slots__ = (
        "cached_tokens",
        "index",
        "parked",
        "prefill_end",
        "prompt_length",
        "request",
        "sampler",
        "slot",
        "status",
        "times",
        "tokens",
    )

    def __init__(self, request: GenerationRequest, index: int = 0) -> None:
        self.request = request
        self.index = index
        self.tokens: array[int] = array("i", request.prompt_token_ids)
        self.prompt_length = len(self.tokens)
        # Prefill computes up to here: the prompt, or more when it is recomputed after preemption.
        self.prefill_end = self.prompt_length
        self.status = SequenceStatus.WAITING
        self.slot: Slot | None = None
        self.parked: ParkedState | None = None
        self.sampler: Any = None
        self.cached_tokens = 0
        self.times = SequenceTimes(request.arrival)

    @property
    def num_generated(self) -> int:
        """Tokens sampled so far."""
        return len(self.tokens) - self.prompt_length

    @property
    def num_computed(self) -> int:
        """Tokens whose cells are in the cache."""
        return 0 if self.slot is None else self.slot.length

    @property
    def remaining_prefill(self) -> int:
        """Tokens still to compute before the next one can be sampled."""
        return self.prefill_end - self.num_computed

    @property
    def priority(self) -> tuple[float, int, int]:
        """Order among equals: first come, first served. Smaller goes first."""
        return self.request.arrival, self.request.request_id, self.index

    def __repr__(self) -> str:
        return (
            f"<Sequence {self.request.request_id}.{self.index} {self.status.value} "
            f"{self.num_computed}/{len(self.tokens)}>"
        )
