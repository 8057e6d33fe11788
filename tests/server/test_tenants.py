"""Who shares cached prefixes with whom, and how long a request may take."""

from __future__ import annotations

from typing import Any

import pytest

from avllm.errors import EngineOverloadedError
from avllm.server import ServerConfig

from .conftest import client_of
from .fake_engine import FakeEngine

pytestmark = pytest.mark.anyio

CHAT = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}


async def _salts(keys: tuple[str, ...], *requests: tuple[str, dict[str, Any]]) -> list[Any]:
    engine = FakeEngine()
    async with client_of(engine, ServerConfig(api_keys=keys)) as client:
        for key, fields in requests:
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            answer = await client.post(
                "/v1/chat/completions", json={**CHAT, **fields}, headers=headers
            )
            assert answer.status_code == 200
    return [options["cache_salt"] for options in engine.submit_options]


async def test_without_keys_everybody_shares() -> None:
    assert await _salts((), ("", {}), ("", {})) == ["", ""]


async def test_each_key_has_a_cache_of_its_own() -> None:
    first, second, again = await _salts(("a", "b"), ("a", {}), ("b", {}), ("a", {}))
    assert first == again != second
    assert first != "a"  # the key itself is not kept


async def test_a_salt_of_the_request_comes_first() -> None:
    keys = await _salts(("a", "b"), ("a", {"cache_salt": "x"}), ("b", {"cache_salt": "x"}))
    assert keys[0] == keys[1]
    assert keys[0] != (await _salts(("x",), ("x", {})))[0]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cache_salt", ""),
        ("cache_salt", "x" * 257),
        ("cache_salt", "a\nb"),
        ("deadline_ms", 0),
        ("deadline_ms", -5),
        ("deadline_ms", 1e12),
    ],
)
async def test_values_out_of_range_are_refused_by_name(field: str, value: Any) -> None:
    async with client_of(FakeEngine()) as client:
        answer = await client.post("/v1/chat/completions", json={**CHAT, field: value})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == field


async def test_a_deadline_reaches_the_engine_in_seconds() -> None:
    engine = FakeEngine()
    async with client_of(engine) as client:
        body = {"prompt": "Hi", "max_tokens": 1, "deadline_ms": 1500}
        assert (await client.post("/v1/completions", json=body)).status_code == 200
    assert engine.submit_options[0]["timeout"] == 1.5


async def test_a_full_queue_is_told_before_the_chat_is_rendered() -> None:
    engine = FakeEngine()
    engine.reject = EngineOverloadedError("The queue is full.", retry_after=7.2)
    engine.encode_chat = None  # type: ignore[assignment]  # calling it would be a 500
    async with client_of(engine) as client:
        answer = await client.post("/v1/chat/completions", json=CHAT)
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 7
