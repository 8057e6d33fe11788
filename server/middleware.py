"""ASGI middleware: request id and access log, errors to JSON, API keys, draining.

In this order from the outside; each is a plain ASGI callable and knows no dialect.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
import uuid
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import DrainingError, UnauthorizedError, error_kind, error_response
from .state import ServerState

logger = logging.getLogger("avllm.server")
access_logger = logging.getLogger("avllm.server.access")

# Probes and scrapers must get an answer at any time.
PROBE_PATHS = frozenset({"/health", "/metrics"})
_MAX_CLIENT_ID = 64


class RequestIdMiddleware:
    """Gives every request an id, returns it as ``x-request-id``, and writes the access log.

    The id is always ours; one that the client sent is only logged, cut and made printable.
    """

    def __init__(self, app: ASGIApp, *, access_log: bool = True) -> None:
        self._app = app
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = f"req_{uuid.uuid4().hex}"
        scope.setdefault("state", {})["request_id"] = request_id
        started = time.perf_counter()
        status = 499  # nothing sent: the client went away first

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            if self._access_log:
                _log_access(scope, request_id, status, time.perf_counter() - started)


def _log_access(scope: Scope, request_id: str, status: int, seconds: float) -> None:
    client = scope.get("client") or ("-", 0)
    client_id = Headers(scope=scope).get("x-request-id", "")[:_MAX_CLIENT_ID]
    # Probes come every few seconds and say nothing about use.
    level = logging.DEBUG if scope["path"] in PROBE_PATHS else logging.INFO
    access_logger.log(
        level,
        "%s %s %s %d %.1fms client=%s id=%s%s",
        scope["method"],
        ascii(scope["path"])[1:-1],
        f"HTTP/{scope.get('http_version', '1.1')}",
        status,
        seconds * 1000,
        client[0],
        request_id,
        f" client_id={ascii(client_id)}" if client_id else "",
    )


class ErrorMiddleware:
    """Turns every exception of the application into its JSON response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except ClientDisconnect:
            return
        except Exception as exc:
            if error_kind(exc).status >= 500:
                _log_failure(scope, exc)
            if started:
                raise  # too late to tell: the server cuts the connection
            await error_response(exc)(scope, receive, send)


def _log_failure(scope: Scope, exc: Exception) -> None:
    kind = error_kind(exc)
    unforeseen = exc if kind.code == "internal_error" else None
    request_id = scope.get("state", {}).get("request_id")
    logger.log(
        logging.WARNING if kind.status == 503 else logging.ERROR,
        "%s %s failed: %s (id=%s)",
        scope["method"],
        ascii(scope["path"])[1:-1],
        kind.code if unforeseen else exc,
        request_id,
        exc_info=unforeseen,
    )


class APIKeyMiddleware:
    """Asks for an API key on every path that is not open.

    A key comes as ``Authorization: Bearer KEY`` or ``x-api-key: KEY``. The comparison takes the
    same time whatever is wrong with the key, and whichever of several keys is right.
    """

    def __init__(self, app: ASGIApp, *, keys: Collection[str], open_paths: Collection[str]) -> None:
        self._app = app
        self._digests = [_digest(key) for key in keys]
        self._open_paths = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in self._open_paths:
            digest = self._check(Headers(scope=scope))
            # Cached prefixes are shared within a key, never between keys.
            scope.setdefault("state", {})["tenant"] = f"key {digest.hex()}"
        await self._app(scope, receive, send)

    def _check(self, headers: Headers) -> bytes:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        digest = _digest(given)
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        if not any(matches):
            raise UnauthorizedError(
                "Wrong or missing API key: send it as 'Authorization: Bearer KEY'.",
                {"WWW-Authenticate": "Bearer"},
            )
        return digest


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


class DrainMiddleware:
    """Counts requests in and out, and refuses new ones while the server drains."""

    def __init__(self, app: ASGIApp, *, state: ServerState) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBE_PATHS:
            await self._app(scope, receive, send)
            return
        if self._state.is_draining:
            raise DrainingError(
                "The server is shutting down; send the request to another one.",
                {"Connection": "close"},
            )
        self._state.enter()
        try:
            await self._app(scope, receive, send)
        finally:
            self._state.leave()
