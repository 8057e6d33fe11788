"""Exceptions to HTTP: one table, one JSON shape for every error the server answers with.

The refusals that only HTTP knows (no key, body too long, ...) are declared here; everything else
is one of `avllm.errors`. The shape is OpenAI's:
``{"error": {"message": str, "type": str, "param": str | null, "code": str}}``.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response

from avllm import errors


class HTTPError(Exception):
    """Base of the refusals that only HTTP knows.

    Attributes:
        headers: response headers that belong to the refusal.
    """

    def __init__(self, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.headers = headers or {}


class UnauthorizedError(HTTPError):
    """The API key is missing or wrong."""


class BodyTooLargeError(HTTPError):
    """The body is longer than the server reads."""


class BodyTimeoutError(HTTPError):
    """The body did not arrive in time."""


class UnsupportedMediaTypeError(HTTPError):
    """The body is not JSON by its content-type, or it is compressed."""


class ModelLoadingError(HTTPError):
    """The model is still being loaded."""


class DrainingError(HTTPError):
    """The server finishes what runs and takes nothing new."""


class ErrorKind(NamedTuple):
    """How an exception class is told to a client."""

    status: int
    type: str
    code: str


_REQUEST = "invalid_request_error"
_SERVER = "server_error"

# An exception is told by the first class of its MRO that stands here.
ERROR_KINDS: dict[type[Exception], ErrorKind] = {
    errors.InvalidRequestError: ErrorKind(400, _REQUEST, "invalid_value"),
    errors.ContextLengthError: ErrorKind(400, _REQUEST, "context_length_exceeded"),
    errors.ModelNotFoundError: ErrorKind(404, _REQUEST, "model_not_found"),
    errors.EngineOverloadedError: ErrorKind(429, "rate_limit_error", "queue_full"),
    errors.QueueTimeoutError: ErrorKind(503, _SERVER, "queue_timeout"),
    errors.DeadlineExceededError: ErrorKind(504, _SERVER, "deadline_exceeded"),
    errors.EngineError: ErrorKind(500, _SERVER, "engine_error"),
    errors.EngineStoppedError: ErrorKind(503, _SERVER, "engine_stopped"),
    errors.DecodeError: ErrorKind(500, _SERVER, "engine_error"),
    errors.ModelLoadError: ErrorKind(500, _SERVER, "model_load_failed"),
    errors.DownloadError: ErrorKind(500, _SERVER, "download_failed"),
    errors.ConfigurationError: ErrorKind(500, _SERVER, "configuration_error"),
    UnauthorizedError: ErrorKind(401, _REQUEST, "invalid_api_key"),
    BodyTimeoutError: ErrorKind(408, "timeout_error", "request_timeout"),
    BodyTooLargeError: ErrorKind(413, _REQUEST, "request_too_large"),
    UnsupportedMediaTypeError: ErrorKind(415, _REQUEST, "unsupported_media_type"),
    ModelLoadingError: ErrorKind(503, _SERVER, "model_loading"),
    DrainingError: ErrorKind(503, _SERVER, "draining"),
}
_INTERNAL = ErrorKind(500, _SERVER, "internal_error")
_ROUTING = {404: "not_found", 405: "method_not_allowed"}


class ErrorDetail(msgspec.Struct, frozen=True):
    """The inner object of an error body."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(msgspec.Struct, frozen=True):
    """The body of every error response, and the data of an error event in a stream."""

    error: ErrorDetail


def error_kind(exc: Exception) -> ErrorKind:
    """Return how `exc` is told: its status, type and code."""
    if isinstance(exc, HTTPException):
        code = _ROUTING.get(exc.status_code, "http_error")
        return ErrorKind(exc.status_code, _REQUEST, code)
    kind = next((ERROR_KINDS[cls] for cls in type(exc).__mro__ if cls in ERROR_KINDS), _INTERNAL)
    own_code = getattr(exc, "code", None)
    return kind._replace(code=own_code) if isinstance(own_code, str) else kind


def error_body(exc: Exception) -> ErrorBody:
    """Return the JSON body for `exc`; an unforeseen exception does not show its message."""
    kind = error_kind(exc)
    if kind is _INTERNAL:
        message = "The server met an unexpected condition; its log has the details."
    elif isinstance(exc, HTTPException):
        message = f"{exc.detail}: this server has no such route or method."
    else:
        message = str(exc)
    return ErrorBody(ErrorDetail(message, kind.type, getattr(exc, "param", None), kind.code))


def error_response(exc: Exception) -> Response:
    """Return the JSON response for `exc`, with Retry-After on 429 and 503."""
    kind = error_kind(exc)
    headers = dict(getattr(exc, "headers", None) or {})
    if kind.status in {429, 503}:
        seconds = max(1, math.ceil(getattr(exc, "retry_after", 1.0)))
        headers.setdefault("Retry-After", str(seconds))
    body = msgspec.json.encode(error_body(exc))
    return Response(body, kind.status, headers, media_type="application/json")
