"""Whether a prompt should wait for another one's prefill, whose cells it will then share."""

from __future__ import annotations

from collections.abc import Iterable

from avllm.engine.prefix_tree import common_prefix
from avllm.engine.sequence import Sequence

# Waiting costs a step or more; it must save at least this many tokens.
_WORTH_WAITING = 32


def is_led(sequence: Sequence, known: int, prefilling: Iterable[Sequence]) -> bool:
    """Return True while a prefill is about to compute a longer prefix of this prompt.

    Args:
        sequence: waits to be admitted.
        known: tokens of its prefix that are in the cache already.
        prefilling: running sequences whose prompts are being computed.
    """
    return any(
        _saved_tokens(leader, sequence, known) >= _WORTH_WAITING
        for leader in prefilling
        if leader.request.cache_salt == sequence.request.cache_salt
    )


def _saved_tokens(leader: Sequence, sequence: Sequence, known: int) -> int:
    # Tokens that need not be computed when `sequence` waits for `leader`.
    if leader.request is sequence.request:
        siblings = sequence.request.params.n - 1
        return siblings * (sequence.prompt_length - 1 - known)
    common = common_prefix(leader.tokens, 0, sequence.tokens, 0)
    return min(common, leader.prefill_end, sequence.prefill_end - 1) - known
