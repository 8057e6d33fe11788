"""Engine: continuous batching of many requests over one shared KV cache."""

from __future__ import annotations

from avllm.engine.async_engine import AsyncEngine, AsyncRequest
from avllm.engine.engine import Engine

__all__ = ["AsyncEngine", "AsyncRequest", "Engine"]
