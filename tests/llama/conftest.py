"""Fixtures of the tests of avllm.llama: the default model, loaded once."""

from __future__ import annotations

from pathlib import Path

import pytest

from avllm.llama import Context, Model, Vocab


@pytest.fixture(scope="session")
def model(model_path: Path) -> Model:
    return Model(str(model_path))


@pytest.fixture(scope="session")
def vocab(model: Model) -> Vocab:
    return Vocab(model)


@pytest.fixture
def context(model: Model) -> Context:
    context = Context(model, n_ctx=1024, n_batch=256, n_seq_max=5, num_threads=2)
    context.attach_threadpool()
    return context
