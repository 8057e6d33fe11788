"""A server with the page and scripted answers: for faults that a healthy server does not give."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

CSP = (
    "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
    "frame-ancestors 'none'; form-action 'self'"
)
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}


class MockServer:
    """What the handler shares with a test: the answer to give, and the requests that came.

    Attributes:
        url: address of the page, known once the server listens.
        answer: called with the handler and the request's body for each generation.
        api_key: when set, requests without it are refused with 401.
        requests: bodies of the generations that were asked for.
        disconnects: how many streams the page left before they ended.
    """

    def __init__(self) -> None:
        self.url = ""
        self.answer: Answer = stream(["Hello", " there", "."])
        self.api_key: str | None = None
        self.requests: list[dict[str, Any]] = []
        self.disconnects = 0


class Handler(BaseHTTPRequestHandler):
    """Serves the page at `/` and at `/prefix/`, and the two endpoints below both."""

    # HTTP/1.0, the default of the base class: no connection outlives its answer, nor the server.
    mock: ClassVar[MockServer]
    directory: ClassVar[Path]

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the test's output is enough."""

    def do_GET(self) -> None:
        path = self.path.split("?")[0].removeprefix("/prefix").lstrip("/")
        if path == "v1/models":
            self._models()
        else:
            self._file(path or "index.html")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if not self._authorized():
            return
        self.mock.requests.append(body)
        try:
            self.mock.answer(self, body)
        except (BrokenPipeError, ConnectionResetError):
            self.mock.disconnects += 1

    def send_json(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        """Send a whole JSON response."""
        data = json.dumps(body).encode()
        self._head(status, {"content-type": "application/json", **(headers or {})}, len(data))
        self.wfile.write(data)

    def begin_stream(self) -> None:
        """Send the head of an event stream that ends with the connection."""
        self._head(200, {"content-type": "text/event-stream"}, None)

    def send_event(self, data: Any) -> None:
        """Send one event; text goes out as it is, anything else as JSON."""
        text = data if isinstance(data, str) else json.dumps(data)
        self.wfile.write(f"data: {text}\n\n".encode())
        self.wfile.flush()

    def _models(self) -> None:
        if self._authorized():
            card = {"id": "mock-model", "object": "model", "meta": {"context_length": 8192}}
            self.send_json(200, {"object": "list", "data": [card]})

    def _authorized(self) -> bool:
        wanted = self.mock.api_key
        if wanted is None or self.headers["authorization"] == f"Bearer {wanted}":
            return True
        self.send_json(401, error("Invalid API key.", "invalid_api_key"))
        return False

    def _file(self, path: str) -> None:
        file = self.directory / path
        if not file.is_file() or ".." in path:
            self.send_json(404, error("Not found.", "not_found"))
            return
        data = file.read_bytes()
        headers = {"content-type": TYPES[file.suffix], "content-security-policy": CSP}
        self._head(200, headers, len(data))
        self.wfile.write(data)

    def _head(self, status: int, headers: dict[str, str], length: int | None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("content-length", str(length))
        self.end_headers()


Answer = Callable[[Handler, dict[str, Any]], None]


def error(message: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """Return an error body in the OpenAI shape."""
    return {
        "error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    }


def refuse(
    status: int, message: str, code: str | None = None, headers: dict[str, str] | None = None
) -> Answer:
    """Answer every generation with an error status."""
    return lambda handler, _: handler.send_json(status, error(message, code), headers)


def stream(
    tokens: list[str], *, delay: float = 0.0, ending: str = "whole", hold: float = 0.0
) -> Answer:
    """Answer with one event per token.

    Parameters:
        delay: seconds between tokens.
        ending: "whole" finishes as a server does, "cut" closes the connection after the last
            token, "error" sends an error event.
        hold: seconds before the first token.
    """

    def answer(handler: Handler, body: dict[str, Any]) -> None:
        handler.begin_stream()
        time.sleep(hold)
        for token in tokens:
            handler.send_event(_chunk(body, token, None))
            time.sleep(delay)
        if ending == "error":
            handler.send_event(error("The engine failed."))
        elif ending == "whole":
            handler.send_event(_chunk(body, "", "stop"))
            handler.send_event({"choices": [], "usage": _usage(len(tokens)), "timings": TIMINGS})
            handler.send_event("[DONE]")

    return answer


TIMINGS = {"predicted_per_second": 41.5, "predicted_n": 3, "prompt_per_second": 250.0}


def _chunk(body: dict[str, Any], text: str, finish_reason: str | None) -> dict[str, Any]:
    choice = {"delta": {"content": text}} if "messages" in body else {"text": text}
    return {"choices": [{"index": 0, "finish_reason": finish_reason, **choice}], "usage": None}


def _usage(completion_tokens: int) -> dict[str, Any]:
    return {
        "prompt_tokens": 20,
        "completion_tokens": completion_tokens,
        "prompt_tokens_details": {"cached_tokens": 12},
    }


@contextmanager
def run_mock_server(directory: Path) -> Iterator[MockServer]:
    """Serve `directory` and scripted answers on a free loopback port until the block ends."""
    mock = MockServer()
    handler = type("BoundHandler", (Handler,), {"directory": directory, "mock": mock})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    mock.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield mock
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
