"""LoadedModel: a model by name, ready to be computed: weights, vocabulary, template, limits."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from avllm.config import EngineConfig, default_threads
from avllm.engine.model_runner import ModelRunner
from avllm.errors import ConfigurationError
from avllm.llama import ChatTemplate, Model, Vocab
from avllm.models import resolve

_DEFAULT_CELLS = (8192, 32768)


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to know about a model; sizes in bytes, lengths in tokens."""

    name: str
    path: str
    architecture: str
    description: str
    n_params: int
    size_bytes: int
    context_length: int
    vocab_size: int
    metadata: dict[str, str]


class LoadedModel:
    """Weights, vocabulary and chat template of one model, and the limits that follow from it.

    Thread-safe after construction.

    Args:
        model: an alias, a path, or owner/repo[:quant].
        config: budgets.
        on_progress: told 0.0 to 1.0 while loading; returning False cancels.

    Raises:
        ModelNotFoundError, ModelLoadError, DownloadError, ConfigurationError
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        config: EngineConfig,
        on_progress: Callable[[float], Any] | None = None,
    ) -> None:
        resolved = resolve(os.fspath(model))
        self.config = config
        self.model = Model(
            str(resolved.path), num_gpu_layers=config.num_gpu_layers, on_progress=on_progress
        )
        if not self.model.has_decoder:
            raise ConfigurationError(
                f"{resolved.name} is an embedding model ({self.model.architecture}): "
                "it cannot generate text.",
                param="model",
            )
        self.tokenizer = Vocab(self.model)
        self.chat_template = ChatTemplate(self.model)
        self.info = self._info(resolved.name)
        self.num_cells = _round_up(config.context_length or self._default_cells())

    @property
    def context_length(self) -> int:
        """Longest a sequence may become, prompt included."""
        return min(self.num_cells, self.model.context_length)

    def make_runner(self) -> ModelRunner:
        """Make the KV cache and what computes on it."""
        threads = self.config.num_threads or default_threads()
        return ModelRunner(self.model, self.config, self.num_cells, threads)

    def encode_prompt(self, text: str) -> list[int]:
        """Tokenize a plain prompt: BOS where the model wants it, control tokens are read."""
        tokens: list[int] = self.tokenizer.encode(text, add_special=True, parse_special=True)
        return tokens

    def encode_chat(self, messages: Sequence[dict[str, Any]], **render_options: Any) -> list[int]:
        """Render a conversation and tokenize it, with exactly one BOS where the model wants one.

        Raises:
            InvalidRequestError: the template refuses the messages.
        """
        text = self.chat_template.render(list(messages), **render_options)
        tokens: list[int] = self.tokenizer.encode(text, add_special=False, parse_special=True)
        bos = self.tokenizer.bos_token
        if self.tokenizer.adds_bos and bos is not None and tokens[:1] != [bos]:
            tokens.insert(0, bos)
        return tokens

    def _default_cells(self) -> int:
        low, high = _DEFAULT_CELLS
        return min(max(self.model.context_length, low), high)

    def _info(self, name: str) -> ModelInfo:
        model = self.model
        return ModelInfo(
            name=name,
            path=model.path,
            architecture=model.architecture,
            description=model.description,
            n_params=model.n_params,
            size_bytes=model.size_bytes,
            context_length=model.context_length,
            vocab_size=self.tokenizer.size,
            metadata=model.metadata,
        )


def _round_up(cells: int) -> int:
    # llama.cpp rounds a cache up to whole blocks of 256 cells.
    return -(-cells // 256) * 256
