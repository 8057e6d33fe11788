"""Reading a request body within its limits, and the JSON in it into a Struct."""

from __future__ import annotations

import re
from typing import TypeVar

import anyio
import msgspec
from starlette.requests import Request

from avllm.errors import InvalidRequestError

from .config import ServerConfig
from .errors import BodyTimeoutError, BodyTooLargeError, UnsupportedMediaTypeError

T = TypeVar("T")

# The rest of a refused body is never read, so the connection cannot carry another request.
_CLOSE = {"Connection": "close"}
_AT = re.compile(r" - at `(?P<key>key` in `)?\$\.?(?P<path>[^`]*)`$")
_MISSING = re.compile(r"Object missing required field `(?P<field>[^`]+)`")


async def read_json(request: Request, decoder: msgspec.json.Decoder[T], config: ServerConfig) -> T:
    """Read the body of `request` and decode it.

    Raises:
        UnsupportedMediaTypeError: the content-type is not JSON, or the body is compressed.
        BodyTooLargeError, BodyTimeoutError: the body is too long or too slow.
        InvalidRequestError: the body is cut short, is not JSON, or is not what `decoder` wants;
            ``param`` names where.
    """
    _check_headers(request, config.max_body_bytes)
    try:
        with anyio.fail_after(config.body_timeout_seconds):
            body = await _read_body(request, config.max_body_bytes)
    except TimeoutError:
        raise BodyTimeoutError(
            f"The body did not arrive within {config.body_timeout_seconds:g} seconds.", _CLOSE
        ) from None
    return decode_json(body, decoder)


def decode_json(body: bytes | bytearray, decoder: msgspec.json.Decoder[T]) -> T:
    """Decode `body`; of duplicate keys the last one counts.

    Raises:
        InvalidRequestError: it is not JSON (RFC 8259), or not what `decoder` wants.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as exc:
        raise _explain(exc) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidRequestError(
            f"The body is not valid JSON: {exc}.", code="invalid_json"
        ) from None


def _explain(exc: msgspec.ValidationError) -> InvalidRequestError:
    text = str(exc)
    at = _AT.search(text)
    path = at["path"] if at else ""
    missing = _MISSING.match(text)
    if missing:
        param = f"{path}.{missing['field']}" if path else missing["field"]
        return InvalidRequestError(
            f"{param} is required.", param=param, code="missing_required_parameter"
        )
    reason = text[: at.start()] if at else text
    where = f"{path}: " if path else "body: "
    code = "invalid_type" if reason.startswith("Expected `") else "invalid_value"
    return InvalidRequestError(f"{where}{reason}.", param=path or None, code=code)


def _check_headers(request: Request, max_bytes: int) -> None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise UnsupportedMediaTypeError(
            "Send the body as JSON with the header 'Content-Type: application/json'.", _CLOSE
        )
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaTypeError(
            "Send the body uncompressed: Content-Encoding is not supported.", _CLOSE
        )
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > max_bytes:
        raise _too_large(max_bytes)


async def _read_body(request: Request, max_bytes: int) -> bytearray:
    body = bytearray()
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            # A malformed chunk looks the same, and then somebody still waits for the answer.
            raise InvalidRequestError("The body is malformed or incomplete.", code="invalid_body")
        body += message.get("body", b"")
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
        if not message.get("more_body", False):
            return body


def _too_large(max_bytes: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"The body may have at most {max_bytes} bytes.", _CLOSE)
