"""Fixtures for pulls: a server on loopback, a store in a temporary folder, no pauses."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from avllm.models import ModelStore, ProgressEvent

from .file_server import FileServer

# Several chunks long, so that a body is cut in the middle of real work.
GGUF_BYTES = 3 * (1 << 20) + 12_345


@pytest.fixture
def server() -> Iterator[FileServer]:
    """A running server with no files."""
    with FileServer() as running:
        yield running


@pytest.fixture
def cdn() -> Iterator[FileServer]:
    """A second server: another origin, as a content delivery network is."""
    with FileServer() as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    """An empty store."""
    return ModelStore(tmp_path / "models")


@pytest.fixture(scope="session")
def gguf() -> bytes:
    """Bytes that begin as a GGUF file does; nothing here loads them."""
    return b"GGUF" + random.Random(1).randbytes(GGUF_BYTES - 4)


@pytest.fixture(scope="session")
def gguf_sha256(gguf: bytes) -> str:
    """SHA-256 of `gguf`, in hex."""
    return hashlib.sha256(gguf).hexdigest()


@pytest.fixture
def events() -> list[ProgressEvent]:
    """A list whose ``append`` is a progress callback."""
    return []


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry at once."""
    monkeypatch.setattr("avllm.models.pull.http.RETRY_DELAYS", (0.0,) * 5)
