"""opened_engine: the engine of a command that runs one model in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from avllm.cli.progress import load_progress, pull_progress
from avllm.models import resolve

if TYPE_CHECKING:
    from avllm import Engine, EngineConfig


@contextmanager
def opened_engine(model: str, config: EngineConfig) -> Iterator[Engine]:
    """Pull `model` where needed, load it, both with progress, and close the engine at the end."""
    from avllm import Engine

    with pull_progress() as on_progress:
        resolve(model, on_progress=on_progress)
    with load_progress(model) as on_load:
        engine = Engine(model, config, on_progress=on_load)
    with engine:
        yield engine
