"""StepBudget: how many prompt tokens a step may take so that running streams keep their pace.

Learns what a step costs: that of its decode rows from the steps without prompt tokens, and per
prompt token what the others take beyond it. An error in the first is made good by the second, so
that steps settle at the target whatever the machine. ``fair_shares`` divides the budget.
"""

from __future__ import annotations

# Weight of what is known already, against the newest step.
_MEMORY = 0.9
_MIN_PREFILL = 8
# A step takes at most this many times what was expected: a machine that was interrupted (a pause,
# a page-in) says nothing about the next step.
_LARGEST_SURPRISE = 4.0
_LEAST_EXPECTED_SECONDS = 0.05
# Least part of a step's seconds that is put down to its prompt tokens.
_LEAST_PREFILL_PART = 0.1
# Streams that miss the target by themselves may be slowed by this part: prompts would hardly get
# on otherwise.
_LEAST_SPARE = 0.25
# Without streams to protect, a step may take this many times the target: larger chunks gain
# little on CPUs, and a new request or a cancellation waits for the end of a step.
_IDLE_FACTOR = 4.0


class StepBudget:
    """Adaptive prompt-token budget of a step.

    Owned by the engine thread.

    Args:
        target_seconds: longest a step should take while streams run.
        max_tokens: most tokens of a step, decode rows included.
    """

    def __init__(self, target_seconds: float, max_tokens: int) -> None:
        self.target_seconds = target_seconds
        self.max_tokens = max_tokens
        # Seconds of decode rows over those of the guess, by the bit length of their number.
        self._decode_factors: dict[int, float] = {}
        # Latest prompt tokens and their seconds; a guess that the first steps replace.
        self._prefill_tokens = 50.0
        self._prefill_seconds = 0.1

    def observe(self, prefill_tokens: int, decode_tokens: int, seconds: float) -> None:
        """Learn from a finished step."""
        expected = max(self.predict(prefill_tokens, decode_tokens), _LEAST_EXPECTED_SECONDS)
        seconds = min(seconds, _LARGEST_SURPRISE * expected)
        if prefill_tokens:
            decode_seconds = self.predict(0, decode_tokens)
            rest = max(seconds - decode_seconds, _LEAST_PREFILL_PART * seconds)
            self._prefill_tokens = _MEMORY * self._prefill_tokens + prefill_tokens
            self._prefill_seconds = _MEMORY * self._prefill_seconds + rest
        elif decode_tokens:
            factor = seconds / _guess(decode_tokens)
            known = self._decode_factors.get(decode_tokens.bit_length(), factor)
            mean = _MEMORY * known + (1 - _MEMORY) * factor
            self._decode_factors[decode_tokens.bit_length()] = mean

    def predict(self, prefill_tokens: int, decode_tokens: int) -> float:
        """Return the expected seconds of a step."""
        per_token = self._prefill_seconds / self._prefill_tokens
        return self._decode_seconds(decode_tokens) + per_token * prefill_tokens

    def prefill_tokens(self, decode_tokens: int) -> int:
        """Return how many prompt tokens may join ``decode_tokens`` running rows."""
        room = self.max_tokens - decode_tokens
        target = self.target_seconds * (1.0 if decode_tokens else _IDLE_FACTOR)
        decode_seconds = self._decode_seconds(decode_tokens)
        spare = max(target - decode_seconds, _LEAST_SPARE * decode_seconds)
        affordable = int(spare * self._prefill_tokens / self._prefill_seconds)
        return max(0, min(room, max(affordable, _MIN_PREFILL)))

    def _decode_seconds(self, decode_tokens: int) -> float:
        if not decode_tokens:
            return 0.0
        size = decode_tokens.bit_length()
        nearest = min(self._decode_factors, key=lambda known: abs(known - size), default=None)
        factor = 1.0 if nearest is None else self._decode_factors[nearest]
        return factor * _guess(decode_tokens)


def _guess(decode_tokens: int) -> float:
    # Seconds of decode rows on a typical machine.
    return 0.01 + 0.002 * decode_tokens


def fair_shares(needs: list[int], budget: int) -> list[int]:
    """Return what each gets of ``budget``: max-min fair, nobody waits behind a large need.

    Equal shares, what small needs leave goes to the larger ones, and what does not divide goes
    one each to the first of ``needs``: the first always gets something.
    """
    level, left = 0, budget
    for position, need in enumerate(sorted(needs)):
        level = left // (len(needs) - position)
        if need > level:
            break
        level, left = need, left - need
    shares = [min(need, level) for need in needs]
    spare = budget - sum(shares)
    for position, need in enumerate(needs):
        if spare and need > shares[position]:
            shares[position] += 1
            spare -= 1
    return shares
