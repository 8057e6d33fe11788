"""Streams and bodies over real sockets: disconnects, slow clients, limits, many at once."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
from typing import Any

import httpx
import pytest
import uvicorn

from avllm.server import ServerConfig, create_app

from .conftest import Serve, eventually, wait_for_port
from .fake_engine import FakeEngine

CHAT = {"model": "fake", "messages": [{"role": "user", "content": "Hi"}]}
ENDLESS = "x" * 100_000


def connect(url: str) -> socket.socket:
    port = int(url.rpartition(":")[2])
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def request_bytes(body: dict[str, Any], path: str = "/v1/chat/completions") -> bytes:
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def read_until(connection: socket.socket, wanted: bytes) -> None:
    received = b""
    while wanted not in received:
        piece = connection.recv(65_536)
        assert piece, f"closed before {wanted!r}: {received!r}"
        received += piece


def read_until_closed(connection: socket.socket) -> bytes:
    received = b""
    while piece := connection.recv(65_536):
        received += piece
    return received


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("n", [1, 3])
def test_a_client_that_goes_away_frees_its_sequences(serve: Serve, stream: bool, n: int) -> None:
    engine = FakeEngine(ENDLESS, delay=0.01)
    url = serve(engine)
    body = {**CHAT, "stream": stream, "n": n}
    with connect(url) as connection:
        connection.sendall(request_bytes(body))
        eventually(lambda: engine.running)
        if stream:
            read_until(connection, b"data: ")
    eventually(lambda: not engine.running)
    assert httpx.get(f"{url}/health").status_code == 200


def test_a_client_that_goes_away_before_the_first_delta(serve: Serve) -> None:
    engine = FakeEngine(delay_first=60)
    url = serve(engine)
    with connect(url) as connection:
        connection.sendall(request_bytes({**CHAT, "stream": True}))
        eventually(lambda: engine.running)
    eventually(lambda: not engine.running)


def test_all_prompts_of_a_client_that_goes_away_are_cancelled(serve: Serve) -> None:
    engine = FakeEngine(ENDLESS, delay=0.01)
    url = serve(engine)
    body = {"prompt": ["a", "b", "c"], "max_tokens": 1000, "stream": True}
    with connect(url) as connection:
        connection.sendall(request_bytes(body, "/v1/completions"))
        eventually(lambda: len(engine.running) == 3)
    eventually(lambda: not engine.running)


def test_a_client_that_stops_reading_is_cut(serve: Serve) -> None:
    # Each delta is 50 kB, so the socket's buffers are full long before the reply ends.
    engine = FakeEngine(["x" * 50_000] * 100_000, delay=0.001)
    url = serve(engine, ServerConfig(send_timeout_seconds=0.3))
    with connect(url) as connection:
        connection.sendall(request_bytes({**CHAT, "stream": True}))
        eventually(lambda: engine.running)
        (request,) = engine.running
        eventually(lambda: request.is_cancelled)
    assert not engine.running


def test_a_body_that_never_ends_is_408(serve: Serve) -> None:
    url = serve(FakeEngine(), ServerConfig(body_timeout_seconds=0.3))
    with connect(url) as connection:
        connection.sendall(request_bytes(CHAT)[:-5])
        received = read_until_closed(connection)
    assert received.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"request_timeout"' in received


def test_an_endless_chunked_body_is_413(serve: Serve) -> None:
    url = serve(FakeEngine(), ServerConfig(max_body_bytes=4096))
    head = (
        b"POST /v1/completions HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    with connect(url) as connection:
        connection.sendall(head)
        for _ in range(10):
            connection.sendall(b"400\r\n" + b" " * 1024 + b"\r\n")
        received = read_until_closed(connection)
    assert received.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"request_too_large"' in received


def test_a_malformed_chunk_is_400(serve: Serve) -> None:
    head = (
        b"POST /v1/completions HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    with connect(serve(FakeEngine())) as connection:
        connection.sendall(head + b"ZZ\r\n{}\r\n0\r\n\r\n")
        received = read_until_closed(connection)
    assert received.startswith(b"HTTP/1.1 400 ")
    assert b'"code":"invalid_body"' in received


def test_headers_that_are_too_long_are_431(serve: Serve) -> None:
    with connect(serve(FakeEngine())) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: test\r\nX: " + b"a" * 65_536)
        assert connection.recv(4096).startswith(b"HTTP/1.1 431 ")


def test_a_long_body_within_the_limit_is_served(serve: Serve) -> None:
    body = {"prompt": "x", "max_tokens": 4, "metadata": "y" * 8_000_000}
    response = httpx.post(f"{serve(FakeEngine())}/v1/completions", json=body)
    assert response.json()["choices"][0]["text"] == "over"


def test_a_body_that_is_cut_short_reaches_no_engine(serve: Serve) -> None:
    engine = FakeEngine()
    url = serve(engine)
    with connect(url) as connection:
        connection.sendall(request_bytes(CHAT)[:-5])
    assert httpx.post(f"{url}/v1/chat/completions", json=CHAT).status_code == 200
    assert len(engine.submitted) == 1


def test_deltas_that_wait_together_leave_in_one_piece() -> None:
    bodies: list[bytes] = []

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body":
            bodies.append(message["body"])

    pending = [{"type": "http.request", "body": json.dumps({**CHAT, "stream": True}).encode()}]

    async def receive() -> dict[str, Any]:
        if pending:
            return pending.pop()
        await asyncio.Event().wait()
        raise AssertionError

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    asyncio.run(create_app(FakeEngine())(scope, receive, send))  # type: ignore[arg-type]
    events = b"".join(bodies).count(b"data: ")
    assert events == 1 + 17 + 1 + 1  # role, characters, finish reason, [DONE]
    assert len(bodies) < events / 2


def test_many_streams_at_once_all_finish(serve: Serve) -> None:
    engine = FakeEngine(delay=0.01)
    url = serve(engine)

    async def one(client: httpx.AsyncClient) -> str:
        body = {**CHAT, "stream": True}
        response = await client.post(f"{url}/v1/chat/completions", json=body)
        return "".join(re.findall(r'"content":"([^"]*)"', response.text))

    async def main() -> list[str]:
        limits = httpx.Limits(max_connections=100)
        async with httpx.AsyncClient(timeout=60, limits=limits) as client:
            return await asyncio.gather(*(one(client) for _ in range(64)))

    assert asyncio.run(main()) == [engine.reply] * 64
    assert not engine.running


def test_the_application_runs_under_another_server() -> None:
    engine = FakeEngine(ENDLESS, delay=0.01)
    config = uvicorn.Config(create_app(engine), port=0, log_level="error")
    server = uvicorn.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            wait_for_port(port)
            check_under_uvicorn(f"http://127.0.0.1:{port}", engine)
        finally:
            server.should_exit = True
            thread.join(20)
    assert not thread.is_alive()


def check_under_uvicorn(url: str, engine: FakeEngine) -> None:
    whole = httpx.post(f"{url}/v1/chat/completions", json={**CHAT, "max_tokens": 3}).json()
    assert whole["choices"][0]["message"]["content"] == "xxx"
    body = {**CHAT, "max_tokens": 3, "stream": True}
    streamed = httpx.post(f"{url}/v1/chat/completions", json=body)
    assert streamed.text.endswith("data: [DONE]\n\n")
    with connect(url) as connection:
        connection.sendall(request_bytes({**CHAT, "stream": True}))
        eventually(lambda: engine.running)
    eventually(lambda: not engine.running)
