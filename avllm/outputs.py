"""What a caller gets back: text deltas while a sequence runs, outputs when it has ended."""

from __future__ import annotations

from typing import Literal

import msgspec

# "stop": an end token, a stop string or a stop token; "length": max_tokens or the context;
# "abort": cancelled by the caller or by shutdown; "error": the engine could not go on.
FinishReason = Literal["stop", "length", "abort", "error"]


class TopLogprob(msgspec.Struct, frozen=True):
    """One alternative at a position: token id, its bytes and its log-probability (natural log)."""

    token_id: int
    token: bytes
    logprob: float


class TokenLogprob(msgspec.Struct, frozen=True):
    """Log-probability of one generated token, before samplers, with its likeliest alternatives."""

    token_id: int
    token: bytes
    logprob: float
    top: tuple[TopLogprob, ...] = ()


class Usage(msgspec.Struct, frozen=True):
    """Tokens that a request took.

    Attributes:
        prompt_tokens: tokens of the prompt, cached ones included.
        completion_tokens: generated tokens, over all n sequences.
        cached_tokens: prompt tokens whose cells were found in the KV cache.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


class RequestTimings(msgspec.Struct, frozen=True):
    """What a sequence experienced; all times in seconds.

    Attributes:
        queue_seconds: from submission to the first step that computed some of it.
        prefill_seconds: from there to its first token.
        decode_seconds: from its first token to its last.
        steps: steps that computed some of it.
        preemptions: how often it was parked or put back to be recomputed.
    """

    queue_seconds: float = 0.0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    steps: int = 0
    preemptions: int = 0


class TextDelta(msgspec.Struct, frozen=True):
    """New text of one sequence of a request.

    Attributes:
        index: which of the n sequences, from 0.
        text: new text, whole characters only; may be empty (a held-back piece, a final delta).
        token_ids: tokens that arrived with this delta.
        logprobs: one entry per token of ``token_ids`` when asked for, else None.
        finish_reason: set on the last delta of this sequence, else None.
        stop_reason: the stop string or stop token id that ended it, if one did.
        usage: set on the last delta of this sequence: tokens of this sequence alone.
        timings: set on the last delta of this sequence.
    """

    index: int
    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None
    usage: Usage | None = None
    timings: RequestTimings | None = None


class CompletionOutput(msgspec.Struct, frozen=True):
    """One finished sequence: its text, tokens, logprobs and why it ended."""

    index: int
    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    stop_reason: str | int | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None
    timings: RequestTimings = RequestTimings()


class RequestOutput(msgspec.Struct, frozen=True):
    """A finished request: one CompletionOutput per sequence, and the usage of all of them.

    Attributes:
        prompt_token_ids: the prompt as the model saw it.
        outputs: n finished sequences, in order of their index.
        usage: tokens of the request; the prompt is counted once.
    """

    prompt_token_ids: tuple[int, ...]
    outputs: tuple[CompletionOutput, ...]
    usage: Usage

    @property
    def text(self) -> str:
        """Text of the first sequence."""
        return self.outputs[0].text

    @property
    def finish_reason(self) -> FinishReason:
        """Why the first sequence ended."""
        return self.outputs[0].finish_reason
