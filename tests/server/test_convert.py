"""avllm.server.openai.convert and limits: what is read, what is refused and under which name."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from avllm.errors import InvalidRequestError
from avllm.server.limits import decode_json
from avllm.server.openai import convert
from avllm.server.openai.schemas import ChatCompletionRequest, CompletionRequest

MESSAGES = [{"role": "user", "content": "Hi"}]
CHAT = msgspec.json.Decoder(ChatCompletionRequest)
COMPLETION = msgspec.json.Decoder(CompletionRequest)


def chat(**fields: Any) -> ChatCompletionRequest:
    return decode_json(msgspec.json.encode({"messages": MESSAGES, **fields}), CHAT)


def completion(**fields: Any) -> CompletionRequest:
    return decode_json(msgspec.json.encode({"prompt": "x", **fields}), COMPLETION)


def test_fields_reach_the_sampling_params() -> None:
    params = convert.chat_sampling_params(
        chat(
            n=2,
            max_tokens=9,
            max_completion_tokens=7,
            temperature=0.5,
            top_p=0.9,
            top_k=40,
            min_p=0.1,
            presence_penalty=0.2,
            frequency_penalty=0.3,
            repetition_penalty=1.1,
            repeat_last_n=32,
            seed=5,
            stop="END",
            stop_token_ids=[2],
            ignore_eos=True,
            logit_bias={"12": -100},
            logprobs=True,
            top_logprobs=3,
        )
    )
    assert (params.n, params.max_tokens, params.temperature, params.top_p) == (2, 7, 0.5, 0.9)
    assert (params.top_k, params.min_p, params.repeat_penalty) == (40, 0.1, 1.1)
    assert (params.presence_penalty, params.frequency_penalty) == (0.2, 0.3)
    assert (params.repeat_last_n, params.seed, params.stop) == (32, 5, ("END",))
    assert (params.stop_token_ids, params.ignore_eos) == ((2,), True)
    assert (params.logit_bias, params.logprobs) == ({12: -100}, 3)


def test_null_means_the_default() -> None:
    nulls = dict.fromkeys(["n", "temperature", "stop", "seed", "logit_bias", "logprobs"])
    assert convert.chat_sampling_params(chat(**nulls)) == convert.chat_sampling_params(chat())


def test_completions_stop_after_16_tokens_unless_told() -> None:
    assert convert.completion_sampling_params(completion()).max_tokens == 16
    assert convert.completion_sampling_params(completion(max_tokens=-1)).max_tokens is None
    assert convert.chat_sampling_params(chat()).max_tokens is None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": -1}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"n": 0}, "n"),
        ({"n": 1.0}, "n"),
        ({"n": 65}, "n"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": -2}, "max_tokens"),
        ({"max_completion_tokens": -2}, "max_completion_tokens"),
        ({"max_completion_tokens": 2**63}, "max_completion_tokens"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"repeat_penalty": 0}, "repeat_penalty"),
        ({"seed": 2**64}, "seed"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": 5}, "stop"),
        ({"logit_bias": {"abc": 1}}, "logit_bias"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": "yes"}, "stream"),
    ],
)
def test_a_wrong_value_is_refused_under_the_clients_name(
    fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        convert.chat_sampling_params(chat(**fields))
    assert caught.value.param == param
    assert param.partition(".")[0] in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"tool_choice": "required"},
        {"functions": [{"name": "f"}]},
        {"function_call": {"name": "f"}},
        {"response_format": {"type": "json_object"}},
        {"modalities": ["text", "audio"]},
        {"audio": {"voice": "a"}},
        {"prediction": {"type": "content", "content": "x"}},
        {"web_search_options": {}},
    ],
)
def test_known_but_unsupported_chat_fields_are_refused_by_name(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        convert.refuse_unsupported_chat(chat(**fields))
    assert caught.value.param == next(iter(fields))
    assert caught.value.code == "unsupported_parameter"


def test_values_that_ask_for_nothing_special_pass() -> None:
    convert.refuse_unsupported_chat(
        chat(
            tools=[],
            tool_choice="none",
            response_format={"type": "text"},
            modalities=["text"],
            user="me",
            store=False,
            service_tier="auto",
            no_such_field=1,
        )
    )
    convert.refuse_unsupported_completion(completion(suffix=None, best_of=1, logprobs=1))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"suffix": "end"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"echo": True, "logprobs": 1}, "logprobs"),
    ],
)
def test_unsupported_completion_fields_are_refused_by_name(
    fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        convert.refuse_unsupported_completion(completion(**fields))
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [[1, 2]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
    ],
)
def test_the_four_kinds_of_prompt(prompt: Any, expected: Any) -> None:
    assert convert.prompts(completion(prompt=prompt), 64) == expected


@pytest.mark.parametrize(
    ("prompt", "param"),
    [
        ([], "prompt"),
        (["a", 1], "prompt"),
        (["a", [1]], "prompt"),
        ([[1], []], "prompt[1]"),
        ([-1], "prompt"),
        ([2**31], "prompt"),
        ([[1], [2**31]], "prompt[1]"),
        (["a"] * 65, "prompt"),
        ([True], "prompt[0]"),
        ([1.5], "prompt[0]"),
        ([["a"]], "prompt[0][0]"),
        ({}, "prompt"),
    ],
)
def test_other_prompts_are_refused(prompt: Any, param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        convert.prompts(completion(prompt=prompt), 64)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ("Hi", "messages"),
        ([{"content": "Hi"}], "messages[0].role"),
        ([*MESSAGES, {"role": "robot", "content": "Hi"}], "messages[1].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": 5}], "messages[0].content"),
        ([{"role": "user", "content": [{"text": "x"}]}], "messages[0].content[0].type"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
            "messages[0].content[0].type",
        ),
    ],
)
def test_wrong_messages_are_refused_where_they_are_wrong(messages: Any, param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        convert.template_messages(chat(messages=messages).messages)
    assert caught.value.param == param


def test_messages_become_what_templates_read() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    request = chat(
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": parts, "name": "Ann"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "42", "tool_call_id": "c1"},
        ]
    )
    assert convert.template_messages(request.messages) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a\nb", "name": "Ann"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "42", "tool_call_id": "c1"},
    ]


def test_render_options() -> None:
    options = convert.render_options(chat(continue_final_message=True))
    assert options["continue_final_message"] is True
    assert options["add_generation_prompt"] is False
    options = convert.render_options(chat(reasoning_effort="low", chat_template_kwargs={"a": 1}))
    assert options["add_generation_prompt"] is True
    assert options["chat_template_kwargs"] == {"a": 1, "reasoning_effort": "low"}
    with pytest.raises(InvalidRequestError):
        convert.render_options(chat(continue_final_message=True, add_generation_prompt=True))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"prompt": "x"} x',
        b"{'prompt': 1}",
        b'\xef\xbb\xbf{"prompt": "x"}',
        '{"prompt": "x"}'.encode("utf-16"),
        b'{"prompt": "\xff"}',
        b'{"prompt": "\\ud83d"}',
        b'{"prompt": "x", "temperature": NaN}',
        b'{"prompt": "x", "other": Infinity}',
        b'{"prompt": "x", "other": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_what_is_not_json_is_told_so(body: bytes) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        decode_json(body, COMPLETION)
    assert (caught.value.code, caught.value.param) == ("invalid_json", None)


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (b"[]", None, "invalid_type"),
        (b"null", None, "invalid_type"),
        (b"{}", "prompt", "missing_required_parameter"),
        (b'{"prompt": null}', "prompt", "invalid_type"),
        (b'{"prompt": "x", "temperature": 1e999}', "temperature", "invalid_value"),
        (b'{"prompt": "x", "top_p": []}', "top_p", "invalid_type"),
    ],
)
def test_json_of_the_wrong_shape_names_the_place(body: bytes, param: str | None, code: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        decode_json(body, COMPLETION)
    assert (caught.value.param, caught.value.code) == (param, code)


def test_of_duplicate_keys_the_last_one_counts() -> None:
    request = decode_json(b'{"prompt": "a", "prompt": "b"}', COMPLETION)
    assert request.prompt == "b"
