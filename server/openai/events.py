"""Frames of OpenAI's event streams that chat and completions share."""

from __future__ import annotations

import msgspec

from ..errors import error_body

DONE = b"data: [DONE]\n\n"
_encoder = msgspec.json.Encoder()


def frame(data: msgspec.Struct) -> bytes:
    """Return `data` as one server-sent event.

    There is never an ``id:`` line: the official client would take every later blank line, even
    the one after a comment, for an event.
    """
    return b"data: " + _encoder.encode(data) + b"\n\n"


def error_frame(exc: Exception) -> bytes:
    """Return the event that tells of a failure; no ``[DONE]`` follows it."""
    return frame(error_body(exc))
