"""A small HTTP server on loopback that serves files and can be told to misbehave."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import unquote, urlsplit


@dataclass
class Served:
    """What one path answers.

    `faults` are used up one per request, then the path behaves: ``("cut", n)`` closes the
    connection after n bytes of the body, ``("status", code)`` answers with that status,
    ``("claim", n)`` states a Content-Length of n, ``("stall", event)`` sends half and waits.
    """

    body: bytes = b""
    etag: str | None = '"one"'
    ranges: bool = True
    redirect: str | None = None
    content_type: str = "application/octet-stream"
    faults: list[tuple[str, object]] = field(default_factory=list)


@dataclass
class Received:
    """One request as it came in."""

    path: str
    headers: dict[str, str]


class FileServer:
    """Serves `files` by path; notes what it was asked for in `received`."""

    def __init__(self) -> None:
        self.files: dict[str, Served] = {}
        self.received: list[Received] = []
        self.before: Callable[[str], None] = lambda path: None
        owner = self

        class Handler(_Handler):
            server_owner = owner

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        """Address without a slash at its end."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FileServer:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def serve(self, path: str, body: bytes = b"", **options: object) -> str:
        """Serve `body` at `path` and return its address."""
        self.files[path] = Served(body, **options)  # type: ignore[arg-type]
        return self.url + path

    def serve_json(self, path: str, value: object) -> str:
        """Serve `value` as JSON at `path` and return its address."""
        return self.serve(path, json.dumps(value).encode(), content_type="application/json")

    def ranges_asked(self) -> list[str | None]:
        """Return the Range header of each request, in order."""
        return [request.headers.get("range") for request in self.received]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay silent when a client went away in the middle, as several tests make it do."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_owner: FileServer

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server_owner.received.append(Received(path, headers))
        self.server_owner.before(path)
        served = self.server_owner.files.get(path)
        kind, value = served.faults.pop(0) if served and served.faults else ("", None)
        if served is None or kind == "status":
            self._head(404 if served is None else int(str(value)), {"Content-Length": "0"})
        elif served.redirect:
            self._head(302, {"Location": served.redirect, "Content-Length": "0"})
        else:
            self._file(served, kind, value)

    def _file(self, served: Served, kind: str, value: object) -> None:
        start, wanted = 0, self.headers.get("Range")
        if wanted and served.ranges:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        total = len(served.body)
        if start and start >= total:
            self._head(416, {"Content-Range": f"bytes */{total}", "Content-Length": "0"})
            return
        body = served.body[start:]
        headers = {"Content-Length": str(value if kind == "claim" else len(body))}
        headers["Content-Type"] = served.content_type
        if served.etag:
            headers["ETag"] = served.etag
        if start:
            headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
        self._head(206 if start else 200, headers)
        self._body(body, kind, value)

    def _body(self, body: bytes, kind: str, value: object) -> None:
        if kind == "stall":
            assert isinstance(value, threading.Event)
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            value.wait(30)
            self.close_connection = True
        elif kind == "cut":
            self.wfile.write(body[: int(str(value))])
            self.close_connection = True
        else:
            self.wfile.write(body)
            self.close_connection = self.close_connection or kind == "claim"

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name, text)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""
