"""avllm.server.errors: every exception has its place in the table, and the wire shape."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from starlette.exceptions import HTTPException

from avllm import errors
from avllm.server.errors import ERROR_KINDS, HTTPError, error_body, error_kind, error_response


def leaves(cls: type[Exception]) -> Iterator[type[Exception]]:
    subclasses = cls.__subclasses__()
    if not subclasses:
        yield cls
    for subclass in subclasses:
        yield from leaves(subclass)


@pytest.mark.parametrize("cls", [*leaves(errors.AvllmError), *leaves(HTTPError)])
def test_every_leaf_is_in_the_table(cls: type[Exception]) -> None:
    assert cls in ERROR_KINDS


def test_request_errors_are_4xx_and_engine_errors_are_not_400() -> None:
    for cls, kind in ERROR_KINDS.items():
        if issubclass(cls, errors.RequestError):
            assert kind.status == 400
        if issubclass(cls, errors.EngineError):
            assert kind.status in {429, 500, 503, 504}


def test_the_body_names_the_parameter() -> None:
    response = error_response(errors.InvalidRequestError("n is wrong.", "n", "invalid_type"))
    assert response.status_code == 400
    assert json.loads(response.body) == {
        "error": {
            "message": "n is wrong.",
            "type": "invalid_request_error",
            "param": "n",
            "code": "invalid_type",
        }
    }


def test_retry_after_is_rounded_up_and_at_least_a_second() -> None:
    for given, told in ((0.1, "1"), (2.2, "3")):
        response = error_response(errors.EngineOverloadedError("full", retry_after=given))
        assert (response.status_code, response.headers["retry-after"]) == (429, told)


def test_a_subclass_is_told_as_its_nearest_base() -> None:
    class Stalled(errors.DecodeError):
        pass

    assert error_kind(Stalled("x")) == ERROR_KINDS[errors.DecodeError]
    assert error_kind(errors.QueueTimeoutError("x")).status == 503


def test_an_unforeseen_exception_does_not_show_its_message() -> None:
    body = error_body(RuntimeError("/home/me/secret.gguf"))
    assert body.error.code == "internal_error"
    assert "secret" not in body.error.message


def test_routing_errors_keep_their_headers() -> None:
    response = error_response(HTTPException(405, headers={"Allow": "POST"}))
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
