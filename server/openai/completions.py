"""Answers of ``/v1/completions``: the whole one and the streamed one.

Sample j of prompt i is choice i * n + j.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import UNSET

from avllm.outputs import CompletionOutput, RequestOutput, TextDelta

from ..streaming import NumberedDelta
from .events import DONE, error_frame, frame
from .logprobs import CompletionLogprobsBuilder
from .schemas import Completion, CompletionChoice, Timings, UsageBlock
from .usage import UsageTally, output_timings, usage_block


def completion(
    outputs: Sequence[RequestOutput],
    echoes: Sequence[str],
    *,
    completion_id: str,
    created: int,
    model: str,
) -> Completion:
    """Return the answer for finished requests, one for each prompt.

    Args:
        outputs: the finished requests, in the order of the prompts.
        echoes: what to put before the text, for each prompt.
        completion_id, created, model: the head of the answer.
    """
    usage = usage_block(output.usage for output in outputs)
    choices = [
        _choice(sequence, number * len(output.outputs) + sequence.index, echoes[number])
        for number, output in enumerate(outputs)
        for sequence in output.outputs
    ]
    return Completion(
        id=completion_id,
        created=created,
        model=model,
        choices=choices,
        usage=usage,
        timings=output_timings(outputs, usage),
    )


def _choice(sequence: CompletionOutput, index: int, echo: str) -> CompletionChoice:
    logprobs = CompletionLogprobsBuilder(len(echo)).add(sequence.logprobs)
    return CompletionChoice(echo + sequence.text, index, logprobs, sequence.finish_reason)


class CompletionEncoder:
    """Says a completion in events: texts, finish reasons, usage, ``[DONE]``."""

    def __init__(
        self,
        *,
        completion_id: str,
        created: int,
        model: str,
        n: int,
        echoes: Sequence[str],
        include_usage: bool,
    ) -> None:
        self._id = completion_id
        self._created = created
        self._model = model
        self._n = n
        self._echoes = echoes
        self._include_usage = include_usage
        self._tally = UsageTally(len(echoes), n)
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
        """Return the frames of `batch`."""
        return b"".join(self._delta(number, delta) for number, delta in batch)

    def end(self) -> bytes:
        """Return the usage, if it was asked for, and ``[DONE]``."""
        if not self._include_usage:
            return DONE
        return frame(self._make([], self._tally.usage())) + DONE

    def error(self, exc: Exception) -> bytes:
        """Return the frame that tells of a failure."""
        return error_frame(exc)

    def _delta(self, number: int, delta: TextDelta) -> bytes:
        index = number * self._n + delta.index
        if not (delta.text or delta.logprobs or delta.finish_reason):
            return b""
        timings = None
        if delta.finish_reason is not None:
            self._tally.add(number, delta)
            timings = None if self._tally.num_open else self._tally.timings()
        logprobs = self._logprobs[index].add(delta.logprobs or None)
        choice = CompletionChoice(delta.text, index, logprobs, delta.finish_reason)
        return self._chunk(choice, timings)

    def _chunk(self, choice: CompletionChoice, timings: Timings | None = None) -> bytes:
        return frame(self._make([choice], None, timings))

    def _make(
        self,
        choices: list[CompletionChoice],
        usage: UsageBlock | None,
        timings: Timings | None = None,
    ) -> Completion:
        return Completion(
            id=self._id,
            created=self._created,
            model=self._model,
            choices=choices,
            usage=usage if self._include_usage else UNSET,
            timings=timings or UNSET,
        )
