"""TextStream: turns the updates of a request into text deltas, on the caller's thread."""

from __future__ import annotations

from collections.abc import Callable

from avllm.engine.detokenizer import Detokenizer, Pieces, StopChecker
from avllm.engine.request import GenerationRequest, RawLogprob, SequenceUpdate
from avllm.outputs import (
    CompletionOutput,
    FinishReason,
    RequestOutput,
    RequestTimings,
    TextDelta,
    TokenLogprob,
    TopLogprob,
    Usage,
)


class _SequenceText:
    """Text side of one sequence."""

    def __init__(self, vocab: Pieces, request: GenerationRequest) -> None:
        params = request.params
        self.detokenizer = Detokenizer(vocab, skip_special=params.skip_special_tokens)
        self.stop = StopChecker(params.stop)
        self.is_finished = False


class TextStream:
    """Text deltas of one request: detokenizing and stop strings.

    Owned by one thread at a time (the consumer's).

    Args:
        request: the request whose updates come in.
        vocab: gives the bytes of a token.
        stop_sequence: called with an index when a stop string ended that sequence, so that the
            engine ends it too.
    """

    def __init__(
        self, request: GenerationRequest, vocab: Pieces, stop_sequence: Callable[[int], None]
    ) -> None:
        self._vocab = vocab
        self._stop_sequence = stop_sequence
        self._prompt_tokens = len(request.prompt_token_ids)
        self._sequences = [_SequenceText(vocab, request) for _ in range(request.params.n)]

    @property
    def is_finished(self) -> bool:
        """True when every sequence has had its last delta."""
        return all(sequence.is_finished for sequence in self._sequences)

    def push(self, update: SequenceUpdate) -> TextDelta | None:
        """Return the delta of an update, or None when there is nothing to tell.

        Raises:
            AvllmError: the sequence ended with an error.
        """
        sequence = self._sequences[update.index]
        if sequence.is_finished:
            return None  # the engine had not heard yet that a stop string ended it
        if update.error is not None:
            sequence.is_finished = True
            raise update.error
        text = sequence.stop.push(sequence.detokenizer.push(update.token_ids))
        if sequence.stop.matched is None and update.finish_reason is not None:
            text += sequence.stop.push(sequence.detokenizer.finish())
        if sequence.stop.matched is not None:
            return self._stopped(sequence, update, text)
        if update.finish_reason is None:
            if not text and not update.token_ids:
                return None
            return TextDelta(update.index, text, update.token_ids, self._logprobs(update))
        sequence.is_finished = True
        text += sequence.stop.finish()
        return self._last(update, text, update.finish_reason, update.stop_reason)

    def _stopped(self, sequence: _SequenceText, update: SequenceUpdate, text: str) -> TextDelta:
        sequence.is_finished = True
        if update.finish_reason is None:
            self._stop_sequence(update.index)
        return self._last(update, text, "stop", sequence.stop.matched)

    def _last(
        self,
        update: SequenceUpdate,
        text: str,
        finish_reason: FinishReason,
        stop_reason: str | int | None,
    ) -> TextDelta:
        return TextDelta(
            update.index,
            text,
            update.token_ids,
            self._logprobs(update),
            finish_reason,
            stop_reason,
            Usage(self._prompt_tokens, update.num_generated, update.cached_tokens),
            None if update.times is None else update.times.timings(),
        )

    def _logprobs(self, update: SequenceUpdate) -> tuple[TokenLogprob, ...] | None:
        if update.logprobs is None:
            return None
        return tuple(self._logprob(raw) for raw in update.logprobs)

    def _logprob(self, raw: RawLogprob) -> TokenLogprob:
        token, logprob, top = raw
        token_bytes = self._vocab.token_bytes
        alternatives = tuple(TopLogprob(t, token_bytes(t), value) for t, value in top)
        return TokenLogprob(token, token_bytes(token), logprob, alternatives)


class OutputCollector:
    """Gathers the deltas of a request into its RequestOutput."""

    def __init__(self, prompt_token_ids: tuple[int, ...], n: int) -> None:
        self._prompt_token_ids = prompt_token_ids
        self._deltas: list[list[TextDelta]] = [[] for _ in range(n)]

    def add(self, delta: TextDelta) -> None:
        """Add one delta."""
        self._deltas[delta.index].append(delta)

    def output(self) -> RequestOutput:
        """Return the whole, once every sequence has had its last delta."""
        lasts = [deltas[-1] for deltas in self._deltas]
        usages = [last.usage or Usage() for last in lasts]
        usage = Usage(
            usages[0].prompt_tokens,
            sum(usage.completion_tokens for usage in usages),
            usages[0].cached_tokens,
        )
        outputs = tuple(_completion(deltas) for deltas in self._deltas)
        return RequestOutput(self._prompt_token_ids, outputs, usage)


def _completion(deltas: list[TextDelta]) -> CompletionOutput:
    last = deltas[-1]
    logprobs: tuple[TokenLogprob, ...] | None = None
    if any(delta.logprobs is not None for delta in deltas):
        logprobs = tuple(item for delta in deltas for item in delta.logprobs or ())
    return CompletionOutput(
        last.index,
        "".join(delta.text for delta in deltas),
        tuple(token for delta in deltas for token in delta.token_ids),
        last.finish_reason or "abort",
        last.stop_reason,
        logprobs,
        last.timings or RequestTimings(),
    )
