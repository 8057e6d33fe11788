"""Log-probabilities in OpenAI's two shapes: the one of chat and the older one of completions."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from avllm.outputs import TokenLogprob

from .schemas import ChatLogprobs, CompletionLogprobs, LogprobEntry, TopLogprobEntry

# JSON has no infinity; a banned token is reported with this instead.
LOWEST = -9999.0


def chat_logprobs(tokens: Sequence[TokenLogprob] | None) -> ChatLogprobs | None:
    """Return `tokens` in the shape of a chat choice; None if none were asked for."""
    if tokens is None:
        return None
    return ChatLogprobs([_chat_entry(token) for token in tokens])


def _chat_entry(token: TokenLogprob) -> LogprobEntry:
    top = [
        TopLogprobEntry(_readable(t.token), max(t.logprob, LOWEST), list(t.token))
        for t in token.top
    ]
    return LogprobEntry(_readable(token.token), max(token.logprob, LOWEST), list(token.token), top)


def _readable(token: bytes) -> str:
    return token.decode("utf-8", "replace")


class CompletionLogprobsBuilder:
    """Builds the older shape piece by piece for one choice.

    ``text_offset`` is where a token begins in the text, in characters. A character that spans
    tokens counts from the token that completes it, as it does in the text itself.
    """

    def __init__(self, offset: int = 0) -> None:
        self._offset = offset
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, tokens: Sequence[TokenLogprob] | None) -> CompletionLogprobs | None:
        """Return the next `tokens`; None if none were asked for."""
        if tokens is None:
            return None
        has_top = any(token.top for token in tokens)
        return CompletionLogprobs(
            tokens=[_label(token.token) for token in tokens],
            token_logprobs=[max(token.logprob, LOWEST) for token in tokens],
            top_logprobs=[_top(token) for token in tokens] if has_top else None,
            text_offset=[self._begin(token.token) for token in tokens],
        )

    def _begin(self, token: bytes) -> int:
        begin = self._offset
        self._offset += len(self._decoder.decode(token))
        return begin


def _top(token: TokenLogprob) -> dict[str, float]:
    return {_label(t.token): max(t.logprob, LOWEST) for t in token.top}


def _label(token: bytes) -> str:
    # Bytes that are no text would all look alike, and these labels are keys.
    try:
        return token.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token)
