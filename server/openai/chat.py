"""Answers of ``/v1/chat/completions``: the whole one and the streamed one."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import UNSET

from avllm.outputs import RequestOutput, TextDelta

from ..streaming import NumberedDelta
from .events import DONE, error_frame, frame
from .logprobs import chat_logprobs
from .schemas import (
    AssistantMessage,
    ChatChoice,
    ChatChunkChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChatDelta,
    Timings,
    UsageBlock,
)
from .usage import UsageTally, output_timings, usage_block


def chat_completion(
    output: RequestOutput, *, completion_id: str, created: int, model: str
) -> ChatCompletion:
    """Return the answer for a finished request."""
    usage = usage_block([output.usage])
    return ChatCompletion(
        id=completion_id,
        created=created,
        model=model,
        choices=[
            ChatChoice(
                sequence.index,
                AssistantMessage(sequence.text),
                sequence.finish_reason,
                chat_logprobs(sequence.logprobs),
            )
            for sequence in output.outputs
        ],
        usage=usage,
        timings=output_timings([output], usage),
    )


class ChatEncoder:
    """Says a chat completion in events: role, content, finish reason, usage, ``[DONE]``."""

    def __init__(
        self, *, completion_id: str, created: int, model: str, n: int, include_usage: bool
    ) -> None:
        self._id = completion_id
        self._created = created
        self._model = model
        self._n = n
        self._include_usage = include_usage
        self._tally = UsageTally(1, n)

    def start(self) -> bytes:
        """Return the role of every choice, in order: clients collect by the order they see."""
        role = ChatDelta(role="assistant", content="")
        return b"".join(self._chunk(ChatChunkChoice(i, role)) for i in range(self._n))

    def deltas(self, batch: Sequence[NumberedDelta]) -> bytes:
        """Return the frames of `batch`."""
        return b"".join(self._delta(delta) for _, delta in batch)

    def end(self) -> bytes:
        """Return the usage, if it was asked for, and ``[DONE]``."""
        if not self._include_usage:
            return DONE
        return frame(self._make([], self._tally.usage())) + DONE

    def error(self, exc: Exception) -> bytes:
        """Return the frame that tells of a failure."""
        return error_frame(exc)

    def _delta(self, delta: TextDelta) -> bytes:
        frames = b""
        if delta.text or delta.logprobs:
            content = ChatDelta(content=delta.text)
            logprobs = chat_logprobs(delta.logprobs)
            frames = self._chunk(ChatChunkChoice(delta.index, content, logprobs))
        if delta.finish_reason is not None:
            self._tally.add(0, delta)
            last = ChatChunkChoice(delta.index, ChatDelta(), None, delta.finish_reason)
            frames += self._chunk(last, None if self._tally.num_open else self._tally.timings())
        return frames

    def _chunk(self, choice: ChatChunkChoice, timings: Timings | None = None) -> bytes:
        return frame(self._make([choice], None, timings))

    def _make(
        self,
        choices: list[ChatChunkChoice],
        usage: UsageBlock | None,
        timings: Timings | None = None,
    ) -> ChatCompletionChunk:
        return ChatCompletionChunk(
            id=self._id,
            created=self._created,
            model=self._model,
            choices=choices,
            usage=usage if self._include_usage else UNSET,
            timings=timings or UNSET,
        )
