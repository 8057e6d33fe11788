"""The official client, with strict validation of every answer.

Each test runs against the fake engine and against a real server with the default model
(`server_url`), so what is asserted holds for any model.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pytest
from openai.types import Completion, CompletionChoice
from openai.types.chat import ChatCompletionMessageParam

from avllm import errors
from avllm.server import ServerConfig

from .conftest import Serve, eventually
from .fake_engine import FakeEngine

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Say hello."}]
PROMPT = "The quick brown fox jumps"


@pytest.fixture(params=["fake", "real"])
def base_url(request: pytest.FixtureRequest, serve: Serve) -> str:
    """URL of a server: with the fake engine, and with the default model."""
    if request.param == "fake":
        return serve(FakeEngine(delay=0.001)) + "/v1"
    return str(request.getfixturevalue("server_url")).rstrip("/") + "/v1"


@pytest.fixture
def client(base_url: str) -> Iterator[openai.OpenAI]:
    """The synchronous client; validates strictly and does not try again."""
    with openai.OpenAI(
        base_url=base_url,
        api_key="none",
        max_retries=0,
        timeout=120,
        _strict_response_validation=True,
    ) as client:
        yield client


@pytest.fixture
async def async_client(base_url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    """The asynchronous client, likewise."""
    async with openai.AsyncOpenAI(
        base_url=base_url,
        api_key="none",
        max_retries=0,
        timeout=120,
        _strict_response_validation=True,
    ) as client:
        yield client


@pytest.fixture
def model(client: openai.OpenAI) -> str:
    """The name of the served model."""
    return client.models.list().data[0].id


def test_models(client: openai.OpenAI, model: str) -> None:
    card = client.models.retrieve(model)
    assert (card.id, card.object, card.owned_by) == (model, "model", "avllm")


def test_chat(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(
        model=model, messages=MESSAGES, max_completion_tokens=8, temperature=0
    )
    (choice,) = answer.choices
    assert (answer.object, answer.model, choice.index) == ("chat.completion", model, 0)
    assert choice.finish_reason in {"stop", "length"}
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert answer.usage is not None
    assert 0 < answer.usage.completion_tokens <= 8
    total = answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.total_tokens == total


def test_chat_streamed_says_what_the_whole_answer_says(client: openai.OpenAI, model: str) -> None:
    options: dict[str, Any] = {"messages": MESSAGES, "max_tokens": 8, "temperature": 0}
    whole = client.chat.completions.create(model=model, **options)
    chunks = list(
        client.chat.completions.create(
            model=model, stream=True, stream_options={"include_usage": True}, **options
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert [c.choices[0].delta.role for c in chunks if c.choices].count("assistant") == 1
    reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert reasons[-1] == whole.choices[0].finish_reason
    assert set(reasons[:-1]) == {None}
    usage, expected = chunks[-1].usage, whole.usage
    assert usage is not None
    assert expected is not None
    assert usage.completion_tokens == expected.completion_tokens
    assert usage.prompt_tokens == expected.prompt_tokens
    assert len({(c.id, c.created, c.model) for c in chunks}) == 1


def test_the_stream_helper_accumulates_n_choices(client: openai.OpenAI, model: str) -> None:
    with client.chat.completions.stream(
        model=model, messages=MESSAGES, max_tokens=6, n=2, seed=1
    ) as stream:
        for _ in stream:
            pass
        final = stream.current_completion_snapshot
    assert [choice.index for choice in final.choices] == [0, 1]
    assert all(choice.message.role == "assistant" for choice in final.choices)
    assert all(choice.finish_reason in {"stop", "length"} for choice in final.choices)


def test_chat_logprobs(client: openai.OpenAI, model: str) -> None:
    options: dict[str, Any] = {"logprobs": True, "top_logprobs": 2, "max_tokens": 4}
    answer = client.chat.completions.create(model=model, messages=MESSAGES, **options)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content
    for entry in logprobs.content:
        assert entry.logprob <= 0
        assert len(entry.top_logprobs) == 2
        assert entry.bytes == list(entry.token.encode())
    chunks = client.chat.completions.create(model=model, messages=MESSAGES, stream=True, **options)
    entries = [
        entry
        for chunk in chunks
        if chunk.choices and chunk.choices[0].logprobs
        for entry in chunk.choices[0].logprobs.content or []
    ]
    assert len(entries) == len(logprobs.content)


def test_completion(client: openai.OpenAI, model: str) -> None:
    answer = client.completions.create(model=model, prompt=PROMPT, max_tokens=6, temperature=0)
    assert answer.object == "text_completion"
    assert answer.choices[0].text
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 6


def checked(chunk: Completion) -> CompletionChoice:
    """Return the choice of a streamed completion, validated.

    The client declares finish_reason as never null, although OpenAI itself sends null until the
    end; so strict validation refuses the streams of any server, and is done here without it.
    """
    data = chunk.to_dict()
    choices: Any = data["choices"]
    if choices[0]["finish_reason"] is None:
        choices[0]["finish_reason"] = "stop"
    Completion.model_validate(data, strict=True)
    return chunk.choices[0]


def test_completion_streamed(client: openai.OpenAI, model: str) -> None:
    options: dict[str, Any] = {"prompt": PROMPT, "max_tokens": 6, "temperature": 0}
    whole = client.completions.create(model=model, **options).choices[0]
    lenient = openai.OpenAI(base_url=client.base_url, api_key="none", max_retries=0)
    with lenient, lenient.completions.create(model=model, stream=True, **options) as stream:
        choices = [checked(chunk) for chunk in stream]
    assert "".join(choice.text for choice in choices) == whole.text
    assert choices[-1].finish_reason == whole.finish_reason
    assert {choice.finish_reason for choice in choices[:-1]} <= {None}


def test_completion_of_many_prompts(client: openai.OpenAI, model: str) -> None:
    answer = client.completions.create(
        model=model, prompt=["One", "Two"], n=2, max_tokens=3, echo=True, seed=3
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    starts = [choice.text[:3] for choice in answer.choices]
    assert starts == ["One", "One", "Two", "Two"]


def test_completion_logprobs(client: openai.OpenAI, model: str) -> None:
    answer = client.completions.create(model=model, prompt=PROMPT, max_tokens=4, logprobs=2)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens
    assert logprobs.token_logprobs
    assert logprobs.text_offset
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.text_offset)
    assert logprobs.text_offset[0] == 0


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"temperature": -1}, "temperature"),
        ({"max_completion_tokens": -5}, "max_completion_tokens"),
        ({"messages": []}, "messages"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"logit_bias": {"1": 1000}}, "logit_bias.1"),
    ],
)
def test_a_wrong_parameter_is_a_bad_request(
    client: openai.OpenAI, model: str, options: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**{"model": model, "messages": MESSAGES, **options})
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id is not None


def test_a_prompt_that_cannot_fit_is_a_bad_request(client: openai.OpenAI, model: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=model, prompt="word " * 100_000)
    assert caught.value.code == "context_length_exceeded"


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="org/other", messages=MESSAGES)
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("org/other")


@pytest.mark.anyio
async def test_async_chat(async_client: openai.AsyncOpenAI, model: str) -> None:
    options: dict[str, Any] = {"messages": MESSAGES, "max_tokens": 8, "temperature": 0}
    whole = await async_client.chat.completions.create(model=model, **options)
    text = ""
    async for chunk in await async_client.chat.completions.create(
        model=model, stream=True, **options
    ):
        text += chunk.choices[0].delta.content or ""
    assert text == whole.choices[0].message.content


@pytest.mark.anyio
async def test_async_completion(async_client: openai.AsyncOpenAI, model: str) -> None:
    options: dict[str, Any] = {"prompt": PROMPT, "max_tokens": 6, "temperature": 0}
    whole = await async_client.completions.create(model=model, **options)
    url = async_client.base_url
    text = ""
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as lenient:
        async for chunk in await lenient.completions.create(model=model, stream=True, **options):
            text += checked(chunk).text
    assert text == whole.choices[0].text


@pytest.mark.anyio
async def test_async_errors(async_client: openai.AsyncOpenAI, model: str) -> None:
    with pytest.raises(openai.BadRequestError):
        await async_client.completions.create(model=model, prompt=PROMPT, top_p=2)


def client_for(url: str, **options: Any) -> openai.OpenAI:
    """Return a strict client of the server at `url`."""
    defaults = {"api_key": "none", "max_retries": 0, "_strict_response_validation": True}
    return openai.OpenAI(base_url=f"{url}/v1", **{**defaults, **options})


def test_a_wrong_key_is_an_authentication_error(serve: Serve) -> None:
    url = serve(FakeEngine(), ServerConfig(api_keys=("right",)))
    with client_for(url, api_key="right") as client:
        assert client.models.list().data
    with client_for(url, api_key="wrong") as client, pytest.raises(openai.AuthenticationError):
        client.models.list()


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("EngineOverloadedError", openai.RateLimitError),
        ("EngineStoppedError", openai.InternalServerError),
        ("DecodeError", openai.InternalServerError),
    ],
)
def test_engine_errors_are_the_clients_exceptions(
    serve: Serve, fault: str, expected: type[openai.APIStatusError]
) -> None:
    url = serve(FakeEngine(reject=getattr(errors, fault)("scripted")))
    with client_for(url) as client, pytest.raises(expected):
        client.chat.completions.create(model="fake", messages=MESSAGES)


def test_a_failure_in_a_stream_is_raised(serve: Serve) -> None:
    url = serve(FakeEngine(fail_at_step=3))
    with client_for(url) as client:
        stream = client.chat.completions.create(model="fake", messages=MESSAGES, stream=True)
        with pytest.raises(openai.APIError, match="unexpected condition"):
            list(stream)


def test_comments_between_events_do_not_disturb_the_client(serve: Serve) -> None:
    url = serve(FakeEngine("abc", delay=0.2), ServerConfig(ping_seconds=0.05))
    with client_for(url) as client:
        stream = client.chat.completions.create(model="fake", messages=MESSAGES, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "abc"


def test_a_client_that_closes_its_stream_cancels_the_request(serve: Serve) -> None:
    engine = FakeEngine("x" * 100_000, delay=0.01)
    with client_for(serve(engine)) as client:
        stream = client.chat.completions.create(model="fake", messages=MESSAGES, stream=True)
        next(iter(stream))
        stream.close()
        eventually(lambda: not engine.running)
