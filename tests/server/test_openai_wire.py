"""The exact JSON and events of the OpenAI dialect, without a network."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from avllm.errors import DecodeError
from avllm.outputs import TextDelta, TokenLogprob, Usage
from avllm.server import ServerConfig
from avllm.server.openai.logprobs import CompletionLogprobsBuilder
from avllm.server.openai.usage import UsageTally

from .conftest import client_of
from .fake_engine import FakeEngine

pytestmark = pytest.mark.anyio

CHAT = {"model": "fake", "messages": [{"role": "user", "content": "Hi"}]}
DOG = "over the lazy dog"
TIMINGS = {
    "queue_ms": 250.0,
    "prompt_n": 8,
    "prompt_ms": 500.0,
    "prompt_per_second": 16.0,
    "cache_n": 0,
    "predicted_n": 17,
    "predicted_ms": 2000.0,
    "predicted_per_second": 8.0,
    "steps": 7,
    "preemptions": 1,
}


async def post(client: httpx.AsyncClient, path: str, **body: Any) -> dict[str, Any]:
    response = await client.post(path, json=body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    result: dict[str, Any] = response.json()
    return result


async def stream(client: httpx.AsyncClient, path: str, **body: Any) -> list[dict[str, Any]]:
    """Return the events of a stream; checks the framing and the end."""
    response = await client.post(path, json={**body, "stream": True})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    frames = response.text.split("\n\n")
    assert frames[-2:] == ["data: [DONE]", ""]
    assert all(frame.startswith("data: ") for frame in frames[:-1])
    return [json.loads(frame[6:]) for frame in frames[:-2]]


async def test_chat(client: httpx.AsyncClient) -> None:
    body = await post(client, "/v1/chat/completions", **CHAT)
    assert body.pop("id").startswith("chatcmpl-")
    assert isinstance(body.pop("created"), int)
    assert body == {
        "object": "chat.completion",
        "model": "fake",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": DOG, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 8,
            "completion_tokens": 17,
            "total_tokens": 25,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        "timings": TIMINGS,
    }


async def test_chat_renders_with_the_options_of_the_request(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    await post(client, "/v1/chat/completions", **CHAT, chat_template_kwargs={"a": 1})
    ((messages, options),) = engine.rendered
    assert messages == [{"role": "user", "content": "Hi"}]
    assert options["chat_template_kwargs"] == {"a": 1}
    assert engine.submitted[0][0] == list(b"<user>Hi")


async def test_chat_streamed(client: httpx.AsyncClient) -> None:
    events = await stream(client, "/v1/chat/completions", **CHAT)
    assert {(e["id"], e["created"], e["model"], e["object"]) for e in events} == {
        (events[0]["id"], events[0]["created"], "fake", "chat.completion.chunk")
    }
    first, *middle, last = (event["choices"][0] for event in events)
    assert first == {
        "index": 0,
        "delta": {"role": "assistant", "content": ""},
        "logprobs": None,
        "finish_reason": None,
    }
    assert "".join(choice["delta"]["content"] for choice in middle) == DOG
    assert all(set(choice["delta"]) == {"content"} for choice in middle)
    assert last == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    assert all("usage" not in event for event in events)
    assert events[-1]["timings"] == TIMINGS
    assert all("timings" not in event for event in events[:-1])


async def test_chat_usage_comes_last_and_is_null_before(client: httpx.AsyncClient) -> None:
    options = {"include_usage": True}
    events = await stream(client, "/v1/chat/completions", **CHAT, stream_options=options)
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["total_tokens"] == 25
    assert all(event["usage"] is None for event in events[:-1])


async def test_chat_choices_begin_in_order_with_one_role_each(client: httpx.AsyncClient) -> None:
    events = await stream(client, "/v1/chat/completions", **CHAT, n=3)
    choices = [event["choices"][0] for event in events]
    assert [c["index"] for c in choices[:3]] == [0, 1, 2]
    assert all(c["delta"] == {"role": "assistant", "content": ""} for c in choices[:3])
    assert all("role" not in c["delta"] for c in choices[3:])
    for index in range(3):
        own = [c for c in choices if c["index"] == index]
        assert "".join(c["delta"].get("content", "") for c in own) == DOG
        assert [c["finish_reason"] for c in own if c["finish_reason"]] == ["stop"]
    assert sum("timings" in event for event in events) == 1


async def test_chat_logprobs(client: httpx.AsyncClient) -> None:
    options = {"logprobs": True, "top_logprobs": 3, "max_tokens": 1}
    body = await post(client, "/v1/chat/completions", **CHAT, **options)
    logprobs = body["choices"][0]["logprobs"]
    assert logprobs == {
        "content": [
            {
                "token": "o",
                "logprob": -0.5,
                "bytes": [111],
                "top_logprobs": [
                    {"token": "o", "logprob": -0.5, "bytes": [111]},
                    {"token": "�", "logprob": -1.5, "bytes": [240, 159]},
                    {"token": "?", "logprob": -9999.0, "bytes": [63]},
                ],
            }
        ],
        "refusal": None,
    }
    events = await stream(client, "/v1/chat/completions", **CHAT, **options)
    assert events[1]["choices"][0]["logprobs"] == logprobs
    body = await post(client, "/v1/chat/completions", **CHAT, logprobs=True)
    assert all(e["top_logprobs"] == [] for e in body["choices"][0]["logprobs"]["content"])


async def test_completion(client: httpx.AsyncClient) -> None:
    body = await post(client, "/v1/completions", prompt="The fox ", max_tokens=4)
    assert body.pop("id").startswith("cmpl-")
    assert body["object"] == "text_completion"
    assert body["choices"] == [
        {"text": "over", "index": 0, "logprobs": None, "finish_reason": "length"}
    ]
    assert body["usage"]["completion_tokens"] == 4


async def test_completion_choices_are_numbered_by_prompt_then_sample(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    body = await post(client, "/v1/completions", prompt=["a", "bc"], n=2, echo=True, max_tokens=1)
    texts = [(choice["index"], choice["text"]) for choice in body["choices"]]
    assert texts == [(0, "ao"), (1, "ao"), (2, "bco"), (3, "bco")]
    assert body["usage"]["prompt_tokens"] == 3
    assert body["usage"]["completion_tokens"] == 4
    assert [ids for ids, _ in engine.submitted] == [[97], [98, 99]]


async def test_completion_of_token_ids_echoes_their_text(client: httpx.AsyncClient) -> None:
    body = await post(client, "/v1/completions", prompt=[72, 105], echo=True, max_tokens=1)
    assert body["choices"][0]["text"] == "Hio"


async def test_completion_streamed(client: httpx.AsyncClient) -> None:
    options = {"stream_options": {"include_usage": True}, "n": 2, "echo": True}
    events = await stream(client, "/v1/completions", prompt=["a", "b"], max_tokens=3, **options)
    assert {event["object"] for event in events} == {"text_completion"}
    texts = ["", "", "", ""]
    reasons: list[list[str]] = [[], [], [], []]
    for event in events[:-1]:
        (choice,) = event["choices"]
        texts[choice["index"]] += choice["text"]
        reasons[choice["index"]] += [choice["finish_reason"]] if choice["finish_reason"] else []
        assert event["usage"] is None
    assert texts == ["aove", "aove", "bove", "bove"]
    assert reasons == [["length"]] * 4
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["prompt_tokens"] == 2
    assert events[-1]["usage"]["completion_tokens"] == 12


async def test_completion_without_new_tokens(client: httpx.AsyncClient) -> None:
    body = await post(client, "/v1/completions", prompt="ab", max_tokens=0, echo=True)
    assert body["choices"][0]["text"] == "ab"
    assert body["usage"]["completion_tokens"] == 0


async def test_completion_logprobs_in_the_older_shape(client: httpx.AsyncClient) -> None:
    body = await post(client, "/v1/completions", prompt="x", max_tokens=2, logprobs=2)
    expected = {
        "tokens": ["o", "v"],
        "token_logprobs": [-0.5, -0.5],
        "top_logprobs": [
            {"o": -0.5, "bytes:\\xf0\\x9f": -1.5},
            {"v": -0.5, "bytes:\\xf0\\x9f": -1.5},
        ],
        "text_offset": [0, 1],
    }
    assert body["choices"][0]["logprobs"] == expected
    events = await stream(client, "/v1/completions", prompt="x", max_tokens=2, logprobs=2)
    pieces = [event["choices"][0]["logprobs"] for event in events]
    assert [piece["text_offset"] for piece in pieces] == [[0], [1]]


async def test_cached_tokens_are_told() -> None:
    async with client_of(FakeEngine(cached_tokens=6)) as client:
        body = await post(client, "/v1/chat/completions", **CHAT)
    assert body["usage"]["prompt_tokens_details"]["cached_tokens"] == 6
    assert (body["timings"]["cache_n"], body["timings"]["prompt_n"]) == (6, 2)


async def test_a_failure_in_a_stream_is_its_last_event() -> None:
    engine = FakeEngine(fail_at_step=4, fault=DecodeError("llama_decode returned -3."))
    async with client_of(engine) as client:
        response = await client.post("/v1/chat/completions", json={**CHAT, "stream": True})
    frames = response.text.split("\n\n")
    assert json.loads(frames[-2][6:]) == {
        "error": {
            "message": "llama_decode returned -3.",
            "type": "server_error",
            "param": None,
            "code": "engine_error",
        }
    }
    assert "[DONE]" not in response.text
    assert not engine.running


async def test_silence_is_filled_with_comments() -> None:
    config = ServerConfig(ping_seconds=0.05)
    async with client_of(FakeEngine(delay_first=0.2), config) as client:
        response = await client.post("/v1/chat/completions", json={**CHAT, "stream": True})
    frames = response.text.split("\n\n")
    pings = [frame for frame in frames if frame == ": ping"]
    assert pings
    assert "id:" not in {line[:3] for line in response.text.splitlines()}
    assert frames[0].startswith('data: {"id":"chatcmpl-')
    assert frames[-2] == "data: [DONE]"


def test_offsets_count_characters_that_span_tokens() -> None:
    builder = CompletionLogprobsBuilder(offset=10)
    pieces = [b"a", "é".encode()[:1], "é".encode()[1:], b"b"]
    tokens = [TokenLogprob(i, piece, -1.0) for i, piece in enumerate(pieces)]
    result = builder.add(tokens)
    assert result is not None
    assert result.text_offset == [10, 11, 11, 12]
    assert result.tokens == ["a", "bytes:\\xc3", "bytes:\\xa9", "b"]
    assert result.top_logprobs is None


def test_the_prompt_of_n_sequences_counts_once() -> None:
    tally = UsageTally(num_requests=1, n=2)
    for index, cached in enumerate((0, 4)):
        usage = Usage(prompt_tokens=5, completion_tokens=3, cached_tokens=cached)
        tally.add(0, TextDelta(index=index, text="", finish_reason="stop", usage=usage))
    block = tally.usage()
    assert (tally.num_open, block.prompt_tokens, block.completion_tokens) == (0, 5, 6)
    assert block.prompt_tokens_details.cached_tokens == 0
