"""Usage and timings of a whole request out of those of its sequences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from avllm.outputs import RequestOutput, RequestTimings, TextDelta, Usage

from .schemas import CachedTokens, Timings, UsageBlock


def usage_block(usages: Iterable[Usage]) -> UsageBlock:
    """Return the sum of `usages`, one for each prompt."""
    prompt = completion = cached = 0
    for usage in usages:
        prompt += usage.prompt_tokens
        completion += usage.completion_tokens
        cached += usage.cached_tokens
    return UsageBlock(prompt, completion, prompt + completion, CachedTokens(cached))


def timings_block(timings: Sequence[RequestTimings], usage: UsageBlock) -> Timings:
    """Return the timings of a request whose sequences ran side by side: the longest of each.

    The rate of generation is counted from the first token on, so a sequence of one token has none.
    """
    prefill = max(t.prefill_seconds for t in timings)
    decode = max(t.decode_seconds for t in timings)
    cached = usage.prompt_tokens_details.cached_tokens
    computed = usage.prompt_tokens - cached
    followers = max(0, usage.completion_tokens - len(timings))
    return Timings(
        queue_ms=_ms(max(t.queue_seconds for t in timings)),
        prompt_n=computed,
        prompt_ms=_ms(prefill),
        prompt_per_second=_rate(computed, prefill),
        cache_n=cached,
        predicted_n=usage.completion_tokens,
        predicted_ms=_ms(decode),
        predicted_per_second=_rate(followers, decode),
        steps=max(t.steps for t in timings),
        preemptions=sum(t.preemptions for t in timings),
    )


def output_timings(outputs: Iterable[RequestOutput], usage: UsageBlock) -> Timings:
    """Return the timings of finished requests."""
    return timings_block([s.timings for output in outputs for s in output.outputs], usage)


class UsageTally:
    """Adds up the last deltas of a stream's sequences.

    Attributes:
        num_open: sequences that have not ended yet.
    """

    def __init__(self, num_requests: int, n: int) -> None:
        self.num_open = num_requests * n
        self._usages: list[list[Usage]] = [[] for _ in range(num_requests)]
        self._timings: list[RequestTimings] = []

    def add(self, number: int, delta: TextDelta) -> None:
        """Take in a delta that has a finish reason, of request `number`."""
        self.num_open -= 1
        self._usages[number].append(delta.usage or Usage())
        self._timings.append(delta.timings or RequestTimings())

    def usage(self) -> UsageBlock:
        """Return the usage so far; the prompt of n sequences counts once."""
        return usage_block(_merged(usages) for usages in self._usages)

    def timings(self) -> Timings:
        """Return the timings so far; at least one sequence must have ended."""
        return timings_block(self._timings, self.usage())


def _merged(usages: list[Usage]) -> Usage:
    return Usage(
        prompt_tokens=max((u.prompt_tokens for u in usages), default=0),
        completion_tokens=sum(u.completion_tokens for u in usages),
        # The later of n sequences find the prompt of the first one cached; the first one tells.
        cached_tokens=min((u.cached_tokens for u in usages), default=0),
    )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _rate(tokens: int, seconds: float) -> float:
    return round(tokens / seconds, 3) if seconds > 0 else 0.0
