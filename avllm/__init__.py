"""avllm: serve a GGUF model to many people at once, or embed the engine that does it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avllm.config import EngineConfig
    from avllm.engine import AsyncEngine, AsyncRequest, Engine
    from avllm.errors import AvllmError
    from avllm.outputs import (
        CompletionOutput,
        RequestOutput,
        RequestTimings,
        TextDelta,
        TokenLogprob,
        TopLogprob,
        Usage,
    )
    from avllm.sampling_params import SamplingParams

__version__ = "0.1.0"

# Name -> module. Loaded on first use: `avllm --help` and the error classes need no llama.cpp.
_HOMES = {
    "AsyncEngine": "avllm.engine",
    "AsyncRequest": "avllm.engine",
    "AvllmError": "avllm.errors",
    "CompletionOutput": "avllm.outputs",
    "Engine": "avllm.engine",
    "EngineConfig": "avllm.config",
    "RequestOutput": "avllm.outputs",
    "RequestTimings": "avllm.outputs",
    "SamplingParams": "avllm.sampling_params",
    "TextDelta": "avllm.outputs",
    "TokenLogprob": "avllm.outputs",
    "TopLogprob": "avllm.outputs",
    "Usage": "avllm.outputs",
}

__all__ = [
    "AsyncEngine",
    "AsyncRequest",
    "AvllmError",
    "CompletionOutput",
    "Engine",
    "EngineConfig",
    "RequestOutput",
    "RequestTimings",
    "SamplingParams",
    "TextDelta",
    "TokenLogprob",
    "TopLogprob",
    "Usage",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'avllm' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
