"""Answers of ``/v1/chat/completions``: the whole one and the streamed one."""

from __future__ import annotations

from collections.abc import Sequence

from avllm.outputs import RequestOutput, TextDelta

from ..streaming import NumberedDelta
from .events import ChunkEncoder, Head
from .logprobs import chat_logprobs
from .schemas import (
    AssistantMessage,
    ChatChoice,
    ChatChunkChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChatDelta,
)
from .usage import UsageTally, output_timings, usage_block


def chat_completion(head: Head, output: RequestOutput) -> ChatCompletion:
    """Return the answer for a finished request."""
    usage = usage_block([output.usage])
    return ChatCompletion(
        **head._asdict(),
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


class ChatEncoder(ChunkEncoder):
    """Says a chat completion in events: role, content, finish reason, usage, ``[DONE]``."""

    chunk_type = ChatCompletionChunk

    def __init__(self, head: Head, *, n: int, include_usage: bool) -> None:
        super().__init__(head, UsageTally(1, n), include_usage)
        self._n = n

    def start(self) -> bytes:
        """Return the role of every choice, in order: clients collect by the order they see."""
        role = ChatDelta(role="assistant", content="")
        return b"".join(self._chunk(ChatChunkChoice(i, role)) for i in range(self._n))

    def deltas(self, batch: Sequence[NumberedDelta]) -> bytes:
        """Return the events of `batch`."""
        return b"".join(self._delta(delta) for _, delta in batch)

    def _delta(self, delta: TextDelta) -> bytes:
        events = b""
        if delta.text or delta.logprobs:
            content = ChatDelta(content=delta.text)
            logprobs = chat_logprobs(delta.logprobs)
            events = self._chunk(ChatChunkChoice(delta.index, content, logprobs))
        if delta.finish_reason is not None:
            self._tally.add(0, delta)
            last = ChatChunkChoice(delta.index, ChatDelta(), None, delta.finish_reason)
            events += self._chunk(last, is_last=not self._tally.num_open)
        return events
