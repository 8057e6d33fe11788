"""From model names to files on disk: short names, pulls and the store.

Knows nothing of the engine and imports no native code. The network clients are imported only
when something is pulled.
"""

from __future__ import annotations

from avllm.models.progress import ProgressCallback, ProgressEvent
from avllm.models.registry import DEFAULT_MODEL, REGISTRY, RegisteredModel, find_registered
from avllm.models.resolve import ResolvedModel, find_stored, resolve
from avllm.models.store import ModelStore, StoredFile, StoredModel

__all__ = [
    "DEFAULT_MODEL",
    "REGISTRY",
    "ModelStore",
    "ProgressCallback",
    "ProgressEvent",
    "RegisteredModel",
    "ResolvedModel",
    "StoredFile",
    "StoredModel",
    "find_registered",
    "find_stored",
    "resolve",
]
