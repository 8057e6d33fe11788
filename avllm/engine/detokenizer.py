"""Detokenizer: token ids to text as they come, whole characters only, without stop strings."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from typing import Protocol

# A character split over tokens is held back until it is whole; bytes that can never become one
# turn into U+FFFD, as Python's "replace" does (Unicode 15, section 3.9, maximal subparts).
_utf8_decoder = codecs.getincrementaldecoder("utf-8")


class Pieces(Protocol):
    """What a vocabulary offers here."""

    def token_bytes(self, token: int) -> bytes: ...
    def is_control(self, token: int) -> bool: ...


class Detokenizer:
    """Text of one sequence, incrementally.

    Owned by one thread at a time.

    Args:
        vocab: gives the bytes of a token.
        skip_special: leave control tokens out.
    """

    def __init__(self, vocab: Pieces, *, skip_special: bool = True) -> None:
        self._vocab = vocab
        self._skip_special = skip_special
        self._decoder = _utf8_decoder("replace")

    def push(self, tokens: Iterable[int]) -> str:
        """Return the text that ``tokens`` complete."""
        vocab = self._vocab
        return self._decoder.decode(
            b"".join(
                vocab.token_bytes(token)
                for token in tokens
                if not (self._skip_special and vocab.is_control(token))
            )
        )

    def finish(self) -> str:
        """Return what an unfinished character leaves at the end: U+FFFD, or nothing."""
        return self._decoder.decode(b"", final=True)


class StopChecker:
    """Finds stop strings in text that comes in pieces; never lets a byte of one through.

    Owned by one thread at a time.

    Args:
        stop: the strings; the one that is complete first ends the text, the longest of several,
            so that it does not matter how the text was cut into pieces.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(stop)
        self._held = ""
        self.matched: str | None = None

    def push(self, text: str) -> str:
        """Return the text that can be shown: no stop string in it, and none begins at its end."""
        if not self._stop:
            return text
        self._held += text
        found = [(at + len(s), at, s) for s in self._stop if (at := self._held.find(s)) >= 0]
        if found:
            _, start, self.matched = min(found)
            shown, self._held = self._held[:start], ""
            return shown
        hold = self._longest_beginning()
        shown, self._held = self._held[: len(self._held) - hold], self._held[-hold:] if hold else ""
        return shown

    def finish(self) -> str:
        """Return what was held back and did not become a stop string."""
        held, self._held = self._held, ""
        return held

    def _longest_beginning(self) -> int:
        # Length of the longest end of the held text that is the beginning of a stop string.
        most = min(len(self._held), max(len(s) for s in self._stop) - 1)
        for length in range(most, 0, -1):
            end = self._held[-length:]
            if any(s.startswith(end) for s in self._stop):
                return length
        return 0
