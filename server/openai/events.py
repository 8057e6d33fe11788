"""Events of OpenAI's streams: what chat and completions share of them."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import msgspec
from msgspec import UNSET

from ..errors import error_body
from .schemas import (
    ChatChunkChoice,
    ChatCompletionChunk,
    Completion,
    CompletionChoice,
    Timings,
    UsageBlock,
)
from .usage import UsageTally

DONE = b"data: [DONE]\n\n"
_encoder = msgspec.json.Encoder()


class Head(NamedTuple):
    """What an answer and every event of its stream begin with."""

    id: str
    created: int
    model: str


def frame(data: msgspec.Struct) -> bytes:
    """Return `data` as one server-sent event.

    There is never an ``id:`` line: the official client would take every later blank line, even
    the one after a comment, for an event.
    """
    return b"data: " + _encoder.encode(data) + b"\n\n"


class ChunkEncoder:
    """Puts choices into the events of one stream, and ends it; subclasses make the choices."""

    chunk_type: ClassVar[type[ChatCompletionChunk] | type[Completion]]

    def __init__(self, head: Head, tally: UsageTally, include_usage: bool) -> None:
        self._head = head
        self._tally = tally
        self._include_usage = include_usage

    def end(self) -> bytes:
        """Return the usage, if it was asked for, and ``[DONE]``."""
        if not self._include_usage:
            return DONE
        return self._frame([], self._tally.usage()) + DONE

    def error(self, exc: Exception) -> bytes:
        """Return the event that tells of a failure; no ``[DONE]`` follows it."""
        return frame(error_body(exc))

    def _chunk(self, choice: ChatChunkChoice | CompletionChoice, is_last: bool = False) -> bytes:
        """Return a choice as an event; the last one of the request tells the timings."""
        return self._frame([choice], None, self._tally.timings() if is_last else None)

    def _frame(
        self,
        choices: list[ChatChunkChoice | CompletionChoice],
        usage: UsageBlock | None,
        timings: Timings | None = None,
    ) -> bytes:
        chunk = self.chunk_type(
            id=self._head.id,
            created=self._head.created,
            model=self._head.model,
            choices=choices,  # type: ignore[arg-type]  # a subclass makes one kind alone
            usage=usage if self._include_usage else UNSET,
            timings=timings or UNSET,
        )
        return frame(chunk)
