"""SamplingParams: how the next token is chosen and when a sequence ends.

One definition and one check for every API: the HTTP dialects translate into it and never check
ranges themselves, so `Engine` and HTTP refuse the same values with the same words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from avllm.errors import InvalidRequestError

MAX_STOP_STRINGS = 16
MAX_STOP_BYTES = 1024
MAX_LOGPROBS = 20
MAX_LOGIT_BIAS = 1024
MAX_N = 64
_INT64 = 2**63

# name: (lowest, highest) allowed, both inclusive; what lies outside makes llama.cpp return noise.
_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 100.0),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
    "repeat_penalty": (0.01, 10.0),
    "repeat_last_n": (-1, 2**20),
    "top_k": (-1, 2**31 - 1),
    "n": (1, MAX_N),
    "max_tokens": (0, 2**31 - 1),
    "seed": (-_INT64, _INT64 - 1),
    "logprobs": (0, MAX_LOGPROBS),
}
_INTEGERS = {"top_k", "repeat_last_n", "n", "max_tokens", "seed", "logprobs"}


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True):
    """How to sample one request. Immutable; checked when it is made.

    Attributes:
        n: how many sequences to sample from the prompt, 1 to 64.
        max_tokens: longest completion in tokens; None means as long as the context allows;
            0 evaluates the prompt and generates nothing.
        temperature: 0 is greedy and exact; larger flattens the distribution.
        top_k: keep the k likeliest tokens; 0 or -1 keeps all.
        top_p: keep the smallest set of tokens whose probability reaches top_p; 1 keeps all.
        min_p: drop tokens less likely than min_p times the likeliest; 0 drops none.
        presence_penalty: subtracted once from the logit of every token generated so far.
        frequency_penalty: subtracted per occurrence in the generated text.
        repeat_penalty: divides (multiplies, if negative) the logit of tokens seen in the last
            ``repeat_last_n`` tokens, prompt included; 1 is off.
        repeat_last_n: window of the repeat penalty in tokens; -1 is the whole context.
        seed: makes sampling repeatable; None draws one. Sequence i of n uses seed + i.
        stop: strings that end the sequence; the string itself is not returned.
        stop_token_ids: token ids that end the sequence; not returned either.
        ignore_eos: go on past the model's end-of-generation tokens.
        logit_bias: token id -> value added to its logit, -100 to 100; -100 bans the token.
        logprobs: how many alternatives to report for each position, 0 to 20; None reports none.
        skip_special_tokens: leave control tokens out of the text.

    Raises:
        InvalidRequestError: a value is out of range or of the wrong type; ``param`` names it.
    """

    n: int = 1
    max_tokens: int | None = None
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logit_bias: Mapping[int, float] = {}
    logprobs: int | None = None
    skip_special_tokens: bool = True

    def __post_init__(self) -> None:
        for name, bounds in _RANGES.items():
            _check_number(name, getattr(self, name), *bounds)
        if self.top_p == 0:
            raise InvalidRequestError("top_p must be greater than 0.", param="top_p")
        # A caller may write stop="END"; a frozen Struct is completed through force_setattr.
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        msgspec.structs.force_setattr(self, "stop", stop)
        msgspec.structs.force_setattr(self, "stop_token_ids", tuple(self.stop_token_ids or ()))
        _check_stop(self.stop, self.stop_token_ids)
        _check_logit_bias(self.logit_bias)


def _check_number(name: str, value: Any, low: float, high: float) -> None:
    if value is None and name in {"max_tokens", "seed", "logprobs"}:
        return
    wanted = (int,) if name in _INTEGERS else (int, float)
    if isinstance(value, bool) or not isinstance(value, wanted):
        kind = "an integer" if name in _INTEGERS else "a number"
        raise InvalidRequestError(f"{name} must be {kind}, got {value!r}.", param=name)
    if not math.isfinite(value) or not low <= value <= high:
        raise InvalidRequestError(
            f"{name} must be between {low:g} and {high:g}, got {value!r}.", param=name
        )


def _check_stop(stop: tuple[str, ...], stop_token_ids: tuple[int, ...]) -> None:
    if len(stop) > MAX_STOP_STRINGS:
        raise InvalidRequestError(
            f"stop may hold at most {MAX_STOP_STRINGS} strings, got {len(stop)}.", param="stop"
        )
    for item in stop:
        if not isinstance(item, str) or not item:
            raise InvalidRequestError("stop must hold non-empty strings.", param="stop")
        if len(item.encode("utf-8", "surrogatepass")) > MAX_STOP_BYTES:
            raise InvalidRequestError(
                f"a stop string may have at most {MAX_STOP_BYTES} bytes.", param="stop"
            )
    for token in stop_token_ids:
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < 2**31:
            raise InvalidRequestError(
                f"stop_token_ids must hold token ids, got {token!r}.", param="stop_token_ids"
            )


def _check_logit_bias(logit_bias: Mapping[int, float]) -> None:
    if len(logit_bias) > MAX_LOGIT_BIAS:
        raise InvalidRequestError(
            f"logit_bias may hold at most {MAX_LOGIT_BIAS} tokens.", param="logit_bias"
        )
    for token, bias in logit_bias.items():
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < 2**31:
            raise InvalidRequestError(
                f"logit_bias keys must be token ids, got {token!r}.", param="logit_bias"
            )
        number = isinstance(bias, (int, float)) and not isinstance(bias, bool)
        if not number or not -100 <= bias <= 100:
            raise InvalidRequestError(
                f"logit_bias[{token}] must be between -100 and 100, got {bias!r}.",
                param=f"logit_bias.{token}",
            )
