"""BaseEngine: what Engine and AsyncEngine have in common: a model, its core, and submission."""

from __future__ import annotations

import atexit
import os
import time
import weakref
from array import array
from collections.abc import Callable, Sequence
from typing import Any

from avllm.config import EngineConfig
from avllm.engine.core import EngineCore, Status
from avllm.engine.loaded_model import LoadedModel, ModelInfo
from avllm.engine.metrics import EngineMetrics
from avllm.engine.request import GenerationRequest, UpdateSink
from avllm.errors import ContextLengthError, EngineOverloadedError, InvalidRequestError
from avllm.llama import ChatTemplate, Vocab
from avllm.sampling_params import SamplingParams

# A prompt: text, or token ids as they are.
Prompt = str | Sequence[int]


class BaseEngine:
    """A model being served to many callers at once; see Engine and AsyncEngine.

    Args:
        model: an alias (``smollm2``), a path, or owner/repo[:quant]; fetched when missing.
        config: budgets; the defaults suit one machine and one model.
        on_progress: told 0.0 to 1.0 while the model loads; returning False cancels.

    Raises:
        ModelNotFoundError: no such model.
        ModelLoadError: the file cannot be used; ``reason`` says why.
        ConfigurationError: a budget is impossible with this model.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = "smollm2",
        config: EngineConfig | None = None,
        *,
        on_progress: Callable[[float], Any] | None = None,
    ) -> None:
        self.config = config or EngineConfig()
        self._loaded = LoadedModel(model, self.config, on_progress)
        self._core = EngineCore(
            self._loaded.make_runner(),
            self.config,
            self._loaded.num_cells,
            self._loaded.tokenizer.eog_tokens,
            can_share=self._loaded.model.can_cut_memory,
        )
        # The engine thread holds the core, never this object: dropping the engine stops it, and
        # so does the interpreter's end, before the machinery that the thread needs is gone.
        self._finalizer = weakref.finalize(self, self._core.close)
        atexit.register(self._finalizer)
        self._core.start()

    @property
    def model_name(self) -> str:
        """Name that the model was asked for by, without path and ending."""
        return self._loaded.info.name

    @property
    def model_info(self) -> ModelInfo:
        """What there is to know about the model."""
        return self._loaded.info

    @property
    def context_length(self) -> int:
        """Longest a sequence may become, prompt included, in tokens."""
        return self._loaded.context_length

    @property
    def tokenizer(self) -> Vocab:
        """The vocabulary: ``encode``, ``decode``, ``token_bytes``. Thread-safe."""
        return self._loaded.tokenizer

    @property
    def chat_template(self) -> ChatTemplate:
        """The chat template: ``render``. Thread-safe."""
        return self._loaded.chat_template

    @property
    def metrics(self) -> EngineMetrics:
        """Counters and histograms; read them through ``snapshot()``."""
        return self._core.metrics

    @property
    def status(self) -> Status:
        """``ready``, ``stopping``, ``stopped`` or ``failed``."""
        return self._core.status

    @property
    def heartbeat_age(self) -> float:
        """Seconds since the engine thread last turned its loop."""
        return self._core.heartbeat_age

    def encode_chat(self, messages: Sequence[dict[str, Any]], **render_options: Any) -> list[int]:
        """Return the prompt of a conversation as token ids.

        Args:
            messages: dicts in OpenAI's form.
            render_options: as of ``ChatTemplate.render``.

        Raises:
            InvalidRequestError: the messages are malformed or the template refuses them.
        """
        return self._loaded.encode_chat(messages, **render_options)

    def close(self, grace_seconds: float = 0.0) -> None:
        """Stop: refuse new requests, let running ones end within the grace, free everything.

        Blocks until it is done; idempotent; from any thread. What has not ended by then raises
        EngineStoppedError to its caller.
        """
        self._core.close(grace_seconds)
        atexit.unregister(self._finalizer)
        self._finalizer.detach()

    def check_capacity(self) -> None:
        """Raise what a submission would raise now, before any work is put into a request.

        Raises:
            EngineOverloadedError: the queue is full.
            EngineStoppedError: the engine is closing, closed, or belongs to a parent process.
        """
        self._reserve()
        self._core.inbox.release()

    def _reserve(self) -> None:
        self._core.check_process()
        try:
            self._core.inbox.reserve()
        except EngineOverloadedError:
            self.metrics.count_rejected("queue_full")
            raise

    def _submit(
        self,
        prompt: Prompt,
        params: SamplingParams,
        sink: UpdateSink,
        *,
        timeout: float | None = None,
        cache_salt: str = "",
    ) -> GenerationRequest:
        self._reserve()  # first: a full queue must cost nothing, not even tokenizing
        try:
            request = self._make_request(prompt, params, sink, timeout, cache_salt)
            self._core.submit(request)
        except BaseException as error:
            self._core.inbox.release()
            if isinstance(error, EngineOverloadedError):  # too many prompt tokens wait
                self.metrics.count_rejected("queue_full")
            raise
        return request

    def _make_request(
        self,
        prompt: Prompt,
        params: SamplingParams,
        sink: UpdateSink,
        timeout: float | None,
        cache_salt: str,
    ) -> GenerationRequest:
        tokens = self._prompt_tokens(prompt)
        self._check_params(params)
        limit, trained = self.context_length, self.model_info.context_length
        if len(tokens) >= limit and not (len(tokens) == limit and params.max_tokens == 0):
            self.metrics.count_rejected("context_length_exceeded")
            raise ContextLengthError(
                f"This model's context is {limit} tokens and the prompt has {len(tokens)}: "
                + ("shorten it." if limit == trained else "shorten it, or give it a larger cache.")
            )
        wanted = limit if params.max_tokens is None else len(tokens) + params.max_tokens
        now = time.perf_counter()
        return GenerationRequest(
            prompt_token_ids=tokens,
            params=params,
            sink=sink,
            max_total_tokens=min(limit, wanted),
            cache_salt=cache_salt,
            arrival=now,
            deadline=None if timeout is None else now + timeout,
            queue_deadline=now + self.config.queue_timeout_seconds,
        )

    def _prompt_tokens(self, prompt: Prompt) -> array[int]:
        if isinstance(prompt, str):
            # No token is longer than a few hundred bytes: what is far too long is refused unread.
            if len(prompt) > 512 * (self.context_length + 1):
                raise ContextLengthError(
                    f"The prompt has {len(prompt)} characters; this model's context is "
                    f"{self.context_length} tokens."
                )
            prompt = self._loaded.encode_prompt(prompt)
        size = self.tokenizer.size
        for position, token in enumerate(prompt):
            if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < size:
                raise InvalidRequestError(
                    f"prompt[{position}] is {token!r}; token ids of this model are "
                    f"0 to {size - 1}.",
                    param="prompt",
                    code="invalid_token",
                )
        if not prompt:
            raise InvalidRequestError("The prompt is empty.", param="prompt")
        return array("i", prompt)

    def _check_params(self, params: SamplingParams) -> None:
        size = self.tokenizer.size
        for name, tokens in (
            ("logit_bias", params.logit_bias),
            ("stop_token_ids", params.stop_token_ids),
        ):
            wrong = next((token for token in tokens if token >= size), None)
            if wrong is not None:
                raise InvalidRequestError(
                    f"{name}: {wrong} is no token of this model (0 to {size - 1}).",
                    param=name,
                    code="invalid_token",
                )
        banned = sum(1 for bias in params.logit_bias.values() if bias <= -100)
        if banned >= size:
            raise InvalidRequestError("logit_bias bans every token.", param="logit_bias")
