"""Answers of ``/v1/completions``: the whole one and the streamed one.

Sample j of prompt i is choice i * n + j.
"""

from __future__ import annotations

from collections.abc import Sequence

from avllm.outputs import CompletionOutput, RequestOutput, TextDelta

from ..streaming import NumberedDelta
from .events import ChunkEncoder, Head
from .logprobs import CompletionLogprobsBuilder
from .schemas import Completion, CompletionChoice
from .usage import UsageTally, output_timings, usage_block


def completion(head: Head, outputs: Sequence[RequestOutput], echoes: Sequence[str]) -> Completion:
    """Return the answer for finished requests, one for each prompt.

    Args:
        head: the head of the answer.
        outputs: the finished requests, in the order of the prompts.
        echoes: what to put before the text, for each prompt.
    """
    usage = usage_block(output.usage for output in outputs)
    choices = [
        _choice(sequence, number * len(output.outputs) + sequence.index, echoes[number])
        for number, output in enumerate(outputs)
        for sequence in output.outputs
    ]
    timings = output_timings(outputs, usage)
    return Completion(**head._asdict(), choices=choices, usage=usage, timings=timings)


def _choice(sequence: CompletionOutput, index: int, echo: str) -> CompletionChoice:
    logprobs = CompletionLogprobsBuilder(len(echo)).add(sequence.logprobs)
    return CompletionChoice(echo + sequence.text, index, logprobs, sequence.finish_reason)


class CompletionEncoder(ChunkEncoder):
    """Says a completion in events: texts, finish reasons, usage, ``[DONE]``."""

    chunk_type = Completion

    def __init__(self, head: Head, *, n: int, echoes: Sequence[str], include_usage: bool) -> None:
        super().__init__(head, UsageTally(len(echoes), n), include_usage)
        self._n = n
        self._echoes = echoes
        self._logprobs = [CompletionLogprobsBuilder(len(e)) for e in echoes for _ in range(n)]

    def start(self) -> bytes:
        """Return the echoed prompts, if there are any."""
        return b"".join(
            self._chunk(CompletionChoice(echo, number * self._n + j))
            for number, echo in enumerate(self._echoes)
            if echo
            for j in range(self._n)
        )

    def deltas(self, batch: Sequence[NumberedDelta]) -> bytes:
        """Return the events of `batch`."""
        return b"".join(self._delta(number, delta) for number, delta in batch)

    def _delta(self, number: int, delta: TextDelta) -> bytes:
        if not (delta.text or delta.logprobs or delta.finish_reason):
            return b""
        is_last = False
        if delta.finish_reason is not None:
            self._tally.add(number, delta)
            is_last = not self._tally.num_open
        index = number * self._n + delta.index
        logprobs = self._logprobs[index].add(delta.logprobs or None)
        return self._chunk(
            CompletionChoice(delta.text, index, logprobs, delta.finish_reason), is_last
        )
