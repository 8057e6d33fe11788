"""BatchPlan: what one step computes, decided by the scheduler and carried out by the runner."""

from __future__ import annotations

from dataclasses import dataclass, field

from avllm.engine.request import RawLogprob
from avllm.engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Rows:
    """Consecutive tokens of one sequence in a step.

    Attributes:
        sequence: whose tokens.
        start: position of the first.
        count: how many.
        wants_token: the last one gets logits, and a token is sampled from them.
        is_decode: the next token of a running stream, not (re)computing known tokens.
    """

    sequence: Sequence
    start: int
    count: int
    wants_token: bool
    is_decode: bool = False


@dataclass(slots=True)
class BatchPlan:
    """All rows of one step: decodes first, then prompt chunks.

    Attributes:
        rows: what to compute.
        admitted: sequences that leave the queue for the first time with this step.
    """

    rows: list[Rows] = field(default_factory=list)
    admitted: list[Sequence] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        """Rows of the batch."""
        return sum(rows.count for rows in self.rows)

    @property
    def num_decodes(self) -> int:
        """Running streams that get their next token."""
        return sum(1 for rows in self.rows if rows.is_decode)


@dataclass(frozen=True, slots=True)
class Sampled:
    """The token that a step gave a sequence; ``token`` is -1 when no candidate was finite."""

    token: int
    logprob: RawLogprob | None = None
