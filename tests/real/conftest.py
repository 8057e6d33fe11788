"""Fixtures of the tests on the real default model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from avllm import Engine, EngineConfig


@pytest.fixture(scope="session")
def engine(model_path: Path) -> Iterator[Engine]:
    with Engine(model_path, EngineConfig(max_num_seqs=32, context_length=8192)) as engine:
        yield engine
