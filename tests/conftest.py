"""Fixtures that many tests share: the real default model, an engine on it, a real server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

STARTUP_SECONDS = 120


@pytest.fixture(scope="session")
def model_path() -> Path:
    """File of the default model; pulled into the user's cache when it is not there yet."""
    from avllm.models import resolve

    return resolve("smollm2").path


@pytest.fixture(scope="session")
def server_url(model_path: Path) -> Iterator[str]:
    """Base URL of a real `avllm serve` with the default model; ends with the session."""
    port = free_port()
    command = [sys.executable, "-m", "avllm", "serve", "smollm2", "--port", str(port)]
    with subprocess.Popen(command, env={**os.environ, "NO_COLOR": "1"}) as process:
        try:
            wait_until_healthy(f"http://127.0.0.1:{port}", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            stop(process)


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_healthy(url: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until the server answers /health with 200; fail when it ends or takes too long."""
    deadline = time.monotonic() + STARTUP_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"the server ended with exit code {process.returncode}")
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    pytest.fail("the server did not become healthy")


def stop(process: subprocess.Popen[bytes], seconds: float = 30) -> int:
    """End a server with SIGTERM and return its exit code; kill it when it hangs."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        pytest.fail(f"the server did not end within {seconds} s of SIGTERM")
