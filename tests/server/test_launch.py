"""run() in a real process: loading, failing to load, draining, signals, ports; never a hang."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from avllm.errors import ConfigurationError
from avllm.server import banner
from avllm.server.listener import claim_port, resolve_host

from .conftest import eventually, wait_for_port

CHAT = {"messages": [{"role": "user", "content": "Hi"}]}
Start = Callable[..., "Child"]


class Child:
    """A server process over the fake engine."""

    def __init__(self, mode: str, *options: str, port: int | None = None) -> None:
        self.port = claim_port("127.0.0.1", 0) if port is None else port
        self.url = f"http://127.0.0.1:{self.port}"
        script = Path(__file__).with_name("serve_fake.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script), str(self.port), mode, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_ready(self) -> None:
        wait_for_port(self.port)
        eventually(lambda: self.health() == 200)

    def health(self) -> int:
        return httpx.get(f"{self.url}/health").status_code

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def end(self) -> tuple[int, str, str]:
        """Wait for the process to end by itself; return its exit code and what it printed."""
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err


@pytest.fixture
def start() -> Iterator[Start]:
    """A function that starts a child; what still runs at the end is killed."""
    children: list[Child] = []

    def begin(mode: str, *options: str, port: int | None = None) -> Child:
        children.append(Child(mode, *options, port=port))
        return children[-1]

    yield begin
    for child in children:
        if child.process.poll() is None:
            child.process.kill()
        child.process.communicate()


class Stream:
    """A stream read in a thread of its own."""

    def __init__(self, child: Child) -> None:
        self.text = ""
        self._url = f"{child.url}/v1/chat/completions"
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        eventually(lambda: "data: " in self.text)

    def _read(self) -> None:
        body = {**CHAT, "stream": True}
        with (
            contextlib.suppress(httpx.TransportError),
            httpx.stream("POST", self._url, json=body, timeout=60) as response,
        ):
            for piece in response.iter_text():
                self.text += piece

    def join(self) -> str:
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.text


def test_it_prints_the_page_and_a_curl_line_that_works(start: Start) -> None:
    child = start("ready")
    child.wait_ready()
    child.signal()
    code, out, _ = child.end()
    assert code == 0
    assert f"{child.url}/" in out
    assert f"curl {child.url}/v1/chat/completions" in out


def test_while_the_model_loads_the_port_answers_503(start: Start) -> None:
    child = start("loading")
    wait_for_port(child.port)
    health = httpx.get(f"{child.url}/health")
    assert (health.status_code, health.json()) == (503, {"status": "loading"})
    chat = httpx.post(f"{child.url}/v1/chat/completions", json=CHAT)
    assert (chat.status_code, chat.json()["error"]["code"]) == (503, "model_loading")
    child.signal()
    assert child.end()[0] == 0


@pytest.mark.parametrize(
    ("mode", "message"), [("broken", "is truncated; pull it again."), ("crashing", "a bug")]
)
def test_a_model_that_does_not_load_ends_the_process_with_1(
    start: Start, mode: str, message: str
) -> None:
    code, out, err = start(mode).end()
    assert code == 1
    assert message in err
    assert "Try: curl" not in out


@pytest.mark.parametrize("attempt", range(6))
def test_ending_right_after_the_start_is_clean(start: Start, attempt: int) -> None:
    # Granian's threads are still ending then; an interpreter that is torn down aborts.
    child = start("ready")
    assert child.process.stdout is not None
    child.process.stdout.readline()
    child.signal()
    code, _, err = child.end()
    assert (code, err) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_streams_finish(start: Start, number: int) -> None:
    child = start("ready")
    child.wait_ready()
    stream = Stream(child)
    child.signal(number)
    assert stream.join().endswith("data: [DONE]\n\n")
    assert child.end()[0] == 0


def test_draining_refuses_what_is_new(start: Start) -> None:
    child = start("slow", "3")
    child.wait_ready()
    with httpx.Client() as client:
        client.get(f"{child.url}/v1/models")
        stream = Stream(child)
        child.signal()
        eventually(lambda: client.get(f"{child.url}/health").json() == {"status": "draining"})
        refused = client.post(f"{child.url}/v1/chat/completions", json=CHAT)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
    stream.join()
    assert child.end()[0] == 0


def test_after_the_grace_period_streams_end_with_an_error_event(start: Start) -> None:
    child = start("slow", "0.2")
    child.wait_ready()
    stream = Stream(child)
    child.signal()
    text = stream.join()
    assert child.end()[0] == 0
    assert '"code":"engine_stopped"' in text.rstrip().rpartition("\n")[2]
    assert "[DONE]" not in text


def test_a_second_signal_ends_at_once(start: Start) -> None:
    child = start("slow", "600")
    child.wait_ready()
    stream = Stream(child)
    child.signal()
    eventually(lambda: child.health() == 503)
    child.signal()
    assert child.end()[0] == 128 + signal.SIGTERM
    assert "[DONE]" not in stream.join()


def test_an_unfinished_body_does_not_keep_the_process(start: Start) -> None:
    child = start("ready", "0.2")
    child.wait_ready()
    with socket.create_connection(("127.0.0.1", child.port)) as connection:
        connection.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: test\r\n"
            b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )
        eventually(lambda: child.health() == 200)
        child.signal()
        assert child.end()[0] == 0


def test_an_engine_that_is_stuck_does_not_keep_the_process(start: Start) -> None:
    child = start("deaf", "0.2")
    child.wait_ready()
    child.signal()
    assert child.end()[0] == 0


def test_a_taken_port_is_told_at_once(start: Start) -> None:
    first = start("ready")
    first.wait_ready()
    code, _, err = start("ready", port=first.port).end()
    assert code == 2
    assert f"port {first.port} of 127.0.0.1 cannot be listened on" in err
    assert first.health() == 200


def test_hosts_are_resolved() -> None:
    assert resolve_host("localhost") == "127.0.0.1"
    assert resolve_host("0.0.0.0") == "0.0.0.0"
    assert resolve_host("::1") == "::1"
    with pytest.raises(ConfigurationError) as caught:
        resolve_host("no such host")
    assert caught.value.param == "host"


def test_port_0_is_a_free_port() -> None:
    port = claim_port("127.0.0.1", 0)
    assert port > 0
    with socket.create_server(("127.0.0.1", port)), pytest.raises(ConfigurationError) as caught:
        claim_port("127.0.0.1", port)
    assert caught.value.param == "port"


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080/"),
        ("0.0.0.0", "http://127.0.0.1:8080/"),
        ("::", "http://[::1]:8080/"),
        ("192.0.2.7", "http://192.0.2.7:8080/"),
    ],
)
def test_the_banner_shows_an_address_that_can_be_opened(address: str, url: str) -> None:
    text = banner("smollm2", address, 8080, needs_key=True)
    assert url in text
    assert "smollm2" in text
    assert "Authorization: Bearer" in text
    assert "Authorization" not in banner("smollm2", address, 8080)
