"""EngineConfig: every budget of an engine, checked once, never changed afterwards."""

from __future__ import annotations

import os

import msgspec

from avllm.errors import ConfigurationError

# llama.cpp keeps a 256-bit set of sequence ids per cell (LLAMA_MAX_SEQ in llama-cparams.h).
MAX_SEQ_IDS = 256


def default_threads() -> int:
    """Return how many threads a step may use: the cores this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Budgets of one engine. Immutable; values that depend on the model are resolved later.

    Attributes:
        max_num_seqs: most sequences that run (hold a place in the batch) at once, 1 to 128.
        context_length: cells of the shared KV cache, in tokens, for all sequences together;
            None takes what the model was trained with, at least 8,192, at most 32,768.
        max_num_batched_tokens: most tokens computed in one step, prompts and decodes together.
        num_threads: threads that compute a step; None takes the cores this process may use.
        num_gpu_layers: layers to put on a GPU when one was built in; -1 is all of them.
        max_queued_requests: requests that may wait; more are refused with a Retry-After.
        max_queued_tokens: prompt tokens that may wait in total.
        queue_timeout_seconds: longest wait in the queue before a request is given up.
        itl_target_ms: inter-token latency that prefill must leave the running streams, in ms.
        prefix_cache: keep the cells of finished sequences and share equal prefixes.
        park_memory_mib: host memory for parked sequences (preempted under memory pressure).
        kv_cache_type: type of the cells: ``f16``, ``f32`` or ``q8_0``.

    Raises:
        ConfigurationError: a value is out of range; ``param`` names it.
    """

    max_num_seqs: int = 32
    context_length: int | None = None
    max_num_batched_tokens: int = 512
    num_threads: int | None = None
    num_gpu_layers: int = -1
    max_queued_requests: int = 1024
    max_queued_tokens: int = 1_048_576
    queue_timeout_seconds: float = 600.0
    itl_target_ms: float = 65.0
    prefix_cache: bool = True
    park_memory_mib: int = 1024
    kv_cache_type: str = "f16"

    def __post_init__(self) -> None:
        self._check("max_num_seqs", 1, 128)
        if self.context_length is not None:
            self._check("context_length", 256, 2**24)
        self._check("max_num_batched_tokens", 64, 8192)
        if self.num_threads is not None:
            self._check("num_threads", 1, 1024)
        self._check("max_queued_requests", 0, 2**20)
        self._check("max_queued_tokens", 0, 2**40)
        self._check("queue_timeout_seconds", 0.001, 86_400)
        self._check("itl_target_ms", 1, 60_000)
        self._check("park_memory_mib", 0, 2**20)
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ConfigurationError(
                "max_num_batched_tokens must be at least max_num_seqs: every running sequence "
                "takes one token of a step.",
                param="max_num_batched_tokens",
            )
        if self.kv_cache_type not in {"f16", "f32", "q8_0"}:
            raise ConfigurationError(
                f"kv_cache_type must be f16, f32 or q8_0, got {self.kv_cache_type!r}.",
                param="kv_cache_type",
            )

    def _check(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if not low <= value <= high:  # also false for NaN
            raise ConfigurationError(
                f"{name} must be between {low:g} and {high:g}, got {value!r}.", param=name
            )
