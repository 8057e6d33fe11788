"""StepBudget: how many prompt tokens a step may take so that running streams keep their pace.

Learns what a step costs: seconds = base + per decode row + per prompt token, by recursive least
squares with forgetting, so that it follows longer contexts and other load on the machine.
``fair_shares`` divides the budget among the prompts.
"""

from __future__ import annotations

import numpy as np

# Weight of a step 100 steps ago; small enough to follow, large enough to average noise out.
_FORGETTING = 0.98
_MIN_PREFILL = 8
# Forgetting lets directions that are not exercised grow without bound; this is where they stop.
_LARGEST_VARIANCE = 1.0
_NOISE_VARIANCE = 1e-6  # of a step's seconds
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
        # base, per decode row, per prompt token: a guess that the first steps replace.
        self._cost = np.array([0.01, 0.002, 0.002])
        self._covariance = np.diag([1e-2, 1e-4, 1e-4])

    def observe(self, prefill_tokens: int, decode_tokens: int, seconds: float) -> None:
        """Learn from a finished step."""
        x = np.array([1.0, decode_tokens, prefill_tokens])
        # An interrupted machine (a pause, a page-in) says nothing about the next step.
        seconds = min(seconds, 4.0 * max(self.predict(prefill_tokens, decode_tokens), 0.05))
        gain = self._covariance @ x
        gain /= _FORGETTING * _NOISE_VARIANCE + x @ gain
        self._cost += gain * (seconds - self._cost @ x)
        np.maximum(self._cost, [0.0, 1e-6, 1e-6], out=self._cost)
        covariance = (self._covariance - np.outer(gain, x @ self._covariance)) / _FORGETTING
        covariance += covariance.T  # exact symmetry, or rounding errors grow
        covariance *= 0.5 * min(1.0, 2 * _LARGEST_VARIANCE / covariance.diagonal().max())
        self._covariance = covariance

    def predict(self, prefill_tokens: int, decode_tokens: int) -> float:
        """Return the expected seconds of a step."""
        return float(self._cost @ np.array([1.0, decode_tokens, prefill_tokens]))

    def prefill_tokens(self, decode_tokens: int) -> int:
        """Return how many prompt tokens may join ``decode_tokens`` running rows."""
        room = self.max_tokens - decode_tokens
        target = self.target_seconds * (1.0 if decode_tokens else _IDLE_FACTOR)
        spare = target - self.predict(0, decode_tokens)
        affordable = int(spare / float(self._cost[2]))
        return max(0, min(room, max(affordable, _MIN_PREFILL)))


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
