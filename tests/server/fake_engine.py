"""An engine without a model: AsyncEngine's interface, byte tokens, scripted answers and faults."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any

from avllm.config import EngineConfig
from avllm.engine.metrics import EngineMetrics
from avllm.errors import ContextLengthError, EngineStoppedError, InvalidRequestError
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
from avllm.sampling_params import SamplingParams

TIMINGS = RequestTimings(
    queue_seconds=0.25, prefill_seconds=0.5, decode_seconds=2.0, steps=7, preemptions=1
)


class FakeTokenizer:
    """A token is a byte."""

    vocab_size = 256

    def encode(self, text: str, **options: bool) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int], **options: bool) -> str:
        return bytes(ids).decode("utf-8", "replace")


class FakeRequest:
    """Says the engine's reply, one character a delta, n times in turn."""

    def __init__(self, engine: FakeEngine, prompt: list[int], params: SamplingParams) -> None:
        self.prompt_token_ids = tuple(prompt)
        self.params = params
        self.is_cancelled = False
        self._engine = engine
        self._woken = asyncio.Event()
        engine.running.add(self)

    def cancel(self) -> None:
        self.is_cancelled = True
        self._engine.running.discard(self)
        self._woken.set()

    def fail(self) -> None:
        self._woken.set()

    async def __aiter__(self) -> AsyncIterator[TextDelta]:
        try:
            await self._wait(self._engine.delay_first)
            for step in range(self._num_steps()):
                await self._wait(self._engine.delay)
                if step == self._engine.fail_at_step:
                    raise self._engine.fault
                for index in range(self.params.n):
                    yield self._delta(index, step)
        finally:
            self._engine.running.discard(self)

    async def _wait(self, seconds: float) -> None:
        if seconds:
            try:
                await asyncio.wait_for(self._woken.wait(), seconds)
            except (TimeoutError, asyncio.TimeoutError):
                return
        if self.is_cancelled:
            raise asyncio.CancelledError
        if self._engine.status != "ready":
            raise EngineStoppedError("The engine is closed.")

    def _num_steps(self) -> int:
        limit = self.params.max_tokens
        length = len(self._engine.reply)
        return max(1, length if limit is None else min(length, limit))

    def _delta(self, index: int, step: int) -> TextDelta:
        is_last = step == self._num_steps() - 1
        none_wanted = self.params.max_tokens == 0
        text = "" if none_wanted else self._engine.reply[step]
        return TextDelta(
            index=index,
            text=text,
            token_ids=tuple(text.encode()[:1]),
            logprobs=self._logprobs(text),
            finish_reason=self._finish_reason() if is_last else None,
            usage=self._usage() if is_last else None,
            timings=TIMINGS if is_last else None,
        )

    def _finish_reason(self) -> FinishReason:
        return self._engine.finish_reason or (
            "stop" if self._num_steps() == len(self._engine.reply) else "length"
        )

    def _usage(self) -> Usage:
        generated = 0 if self.params.max_tokens == 0 else self._num_steps()
        return Usage(len(self.prompt_token_ids), generated, self._engine.cached_tokens)

    def _logprobs(self, text: str) -> tuple[TokenLogprob, ...] | None:
        wanted = self.params.logprobs
        if wanted is None or not text:
            return None
        candidates = [(text.encode(), -0.5), (b"\xf0\x9f", -1.5), (b"?", -math.inf)]
        top = tuple(TopLogprob(i, token, value) for i, (token, value) in enumerate(candidates))
        return (TokenLogprob(0, text.encode(), -0.5, top[:wanted]),)

    async def result(self) -> RequestOutput:
        texts = [""] * self.params.n
        logprobs: list[list[TokenLogprob]] = [[] for _ in texts]
        reasons: dict[int, FinishReason] = {}
        async for delta in self:
            texts[delta.index] += delta.text
            logprobs[delta.index] += delta.logprobs or ()
            if delta.finish_reason:
                reasons[delta.index] = delta.finish_reason
        wants_logprobs = self.params.logprobs is not None
        outputs = tuple(
            CompletionOutput(
                index,
                text,
                tuple(text.encode()),
                reasons[index],
                logprobs=tuple(logprobs[index]) if wants_logprobs else None,
                timings=TIMINGS,
            )
            for index, text in enumerate(texts)
        )
        one = self._usage()
        total = Usage(one.prompt_tokens, one.completion_tokens * len(texts), one.cached_tokens)
        return RequestOutput(self.prompt_token_ids, outputs, total)


class FakeEngine:
    """Answers every prompt with `reply`.

    Attributes:
        reply: the answer, one token a character (or a string, in a list).
        delay_first, delay: seconds before the first and before each character.
        fail_at_step, fault: raise `fault` before this character; -1 never.
        reject: raised by submit.
        finish_reason: reported in place of the true one.
        running: requests that have neither ended nor been cancelled.
        submitted: (prompt ids, parameters) of every request.
        rendered: (messages, options) of every chat.
    """

    def __init__(self, reply: str | list[str] = "over the lazy dog", **script: Any) -> None:
        self.reply = reply
        self.delay_first: float = script.pop("delay_first", 0)
        self.delay: float = script.pop("delay", 0)
        self.fail_at_step: int = script.pop("fail_at_step", -1)
        self.fault: Exception = script.pop("fault", RuntimeError("scripted"))
        self.reject: Exception | None = script.pop("reject", None)
        self.finish_reason: FinishReason | None = script.pop("finish_reason", None)
        self.cached_tokens: int = script.pop("cached_tokens", 0)
        assert not script, script
        self.running: set[FakeRequest] = set()
        self.submitted: list[tuple[list[int], SamplingParams]] = []
        self.submit_options: list[dict[str, object]] = []
        self.rendered: list[tuple[list[dict[str, Any]], dict[str, Any]]] = []
        self.status = "ready"
        self.heartbeat_age = 0.01
        self.model_name = "fake"
        self.config = EngineConfig()
        self.context_length = 1000
        self.tokenizer = FakeTokenizer()
        self.metrics = EngineMetrics()
        self.model_info = SimpleNamespace(
            name="fake",
            path="/models/fake.gguf",
            architecture="llama",
            n_params=135,
            size_bytes=98,
            context_length=2000,
            vocab_size=256,
            description="a fake",
            metadata={},
        )
        self._loop: asyncio.AbstractEventLoop | None = None

    def encode_chat(self, messages: list[dict[str, Any]], **options: Any) -> list[int]:
        self.rendered.append((messages, options))
        return list("".join(f"<{m['role']}>{m['content']}" for m in messages).encode())

    def check_capacity(self) -> None:
        if self.reject is not None:
            raise self.reject

    async def submit(
        self,
        prompt: str | Sequence[int],
        params: SamplingParams,
        *,
        timeout: float | None = None,
        cache_salt: str = "",
    ) -> FakeRequest:
        self._loop = asyncio.get_running_loop()
        self.check_capacity()
        ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
        if not ids:
            raise InvalidRequestError("The prompt is empty.", param="prompt")
        if len(ids) >= self.context_length:
            raise ContextLengthError(f"The prompt has {len(ids)} tokens, more than fit.")
        self.submitted.append((ids, params))
        self.submit_options.append({"timeout": timeout, "cache_salt": cache_salt})
        return FakeRequest(self, ids, params)

    def close(self, grace_seconds: float = 0) -> None:
        self.status = "stopped"
        if self._loop is not None:
            self._loop.call_soon_threadsafe(lambda: [r.fail() for r in list(self.running)])
