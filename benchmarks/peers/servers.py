"""Servers under measure: avllm and llama-server, started alike and driven over the same API."""

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
from contextlib import contextmanager
from pathlib import Path

STARTUP_SECONDS = 120


@contextmanager
def avllm_server(
    model: Path, *, parallel: int, cells: int, threads: int, arguments: tuple[str, ...] = ()
) -> Iterator[str]:
    """Serve ``model`` with avllm; yields the base URL."""
    command = [sys.executable, "-m", "avllm", "serve", str(model), "--log-level", "error"]
    command += ["--parallel", str(parallel), "--ctx-size", str(cells), "--threads", str(threads)]
    with _server([*command, *arguments]) as url:
        yield url


@contextmanager
def llama_server(
    tool: Path,
    model: Path,
    *,
    parallel: int,
    cells: int,
    threads: int,
    unified: bool,
    arguments: tuple[str, ...] = (),
) -> Iterator[str]:
    """Serve ``model`` with llama-server; yields the base URL."""
    command = [str(tool), "-m", str(model), "--parallel", str(parallel), "-c", str(cells)]
    command += ["-t", str(threads), "-tb", str(threads), "--no-webui", "-lv", "0"]
    command += ["--kv-unified" if unified else "--no-kv-unified"]
    with _server([*command, *arguments]) as url:
        yield url


@contextmanager
def _server(command: list[str]) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [*command, "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ}
    )
    try:
        _wait_until_healthy(url, process)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_healthy(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + STARTUP_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with code {process.returncode}")
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    raise RuntimeError(f"{process.args!r} did not become healthy")
