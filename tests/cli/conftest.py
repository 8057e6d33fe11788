"""Fixtures of the command line's tests: an isolated cache, a runner, a fake engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import avllm
from avllm.cli import main

from .fake_engine import FakeEngine, model_file

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder; no variable of the caller's reaches the commands."""
    for name in ("AVLLM_DEBUG", "AVLLM_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AVLLM_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def run() -> Run:
    """Run a command line in this process."""

    def invoke(*arguments: str, stdin: str = "") -> Result:
        return CliRunner().invoke(main, arguments, input=stdin, prog_name="avllm")

    return invoke


@pytest.fixture
def fake_model(tmp_path: Path) -> str:
    """The path of a file that passes for a model."""
    return str(model_file(tmp_path))


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[FakeEngine]:
    """The fake engines that commands open, in order."""
    monkeypatch.setattr(avllm, "Engine", FakeEngine, raising=False)
    monkeypatch.setattr(FakeEngine, "opened", [])
    return FakeEngine.opened
