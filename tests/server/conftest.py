"""Fixtures of the server tests: in-process clients, and a Granian server in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest

from avllm.server import ServerConfig, create_app
from avllm.server.listener import Listener, claim_port

from .fake_engine import FakeEngine

Serve = Callable[..., str]


@pytest.fixture
def anyio_backend() -> str:
    """Run the async tests on asyncio: that is what the servers run."""
    return "asyncio"


@pytest.fixture
def engine() -> FakeEngine:
    """An engine that answers at once."""
    return FakeEngine()


@contextlib.asynccontextmanager
async def client_of(engine: Any, config: ServerConfig | None = None) -> AsyncIterator[Any]:
    """Open a client that calls the application without a network."""
    app = create_app(engine, config)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        client.app = app  # type: ignore[attr-defined]
        yield client


@pytest.fixture
async def client(engine: FakeEngine) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application over `engine`."""
    async with client_of(engine) as client:
        yield client


def wait_for_port(port: int, timeout: float = 20) -> None:
    """Return once somebody listens on `port`."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise TimeoutError(f"nobody listens on port {port}")


@contextlib.contextmanager
def granian(app: Any) -> Iterator[str]:
    """Serve `app` with our listener in a thread; yield its URL."""
    port = claim_port("127.0.0.1", 0)
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def main() -> None:
        listener = Listener(app, "127.0.0.1", port)
        listener.start()
        await stop.wait()
        assert await listener.stop(10)

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    try:
        wait_for_port(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        assert not thread.is_alive()
        time.sleep(0.1)  # for Granian's own threads, should this be the last test of the process
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """A function that serves an engine with Granian on loopback and returns the URL."""
    with contextlib.ExitStack() as stack:

        def start(engine: Any, config: ServerConfig | None = None) -> str:
            return stack.enter_context(granian(create_app(engine, config)))

        yield start


def eventually(condition: Callable[[], object], timeout: float = 10) -> None:
    """Return once `condition` holds; fail if it never does."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        time.sleep(0.005)
