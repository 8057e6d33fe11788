"""From an OpenAI request to what the engine takes: SamplingParams, messages, prompts.

Ranges are checked by `SamplingParams` alone; here its words are only given the names that the
client used. What this server cannot honour is refused by name, never dropped in silence.
"""

from __future__ import annotations

from typing import Any

from avllm.errors import InvalidRequestError
from avllm.sampling_params import SamplingParams

from .schemas import ChatCompletionRequest, ChatMessage, CompletionRequest, SamplingFields

# What OpenAI documents for /v1/completions; chat has no such default.
DEFAULT_COMPLETION_TOKENS = 16
MAX_SALT_LENGTH = 256
MAX_DEADLINE_MS = 86_400_000

Prompt = str | list[int]

_PLAIN_FIELDS = (
    "n",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repeat_last_n",
    "seed",
    "ignore_eos",
    "logit_bias",
    "stop",
    "stop_token_ids",
)


def chat_sampling_params(request: ChatCompletionRequest) -> SamplingParams:
    """Return the sampling parameters of a chat request.

    Raises:
        InvalidRequestError: a value is out of range, or fields contradict each other.
    """
    if request.top_logprobs is not None and not request.logprobs:
        raise InvalidRequestError("top_logprobs needs logprobs: true.", param="top_logprobs")
    logprobs = (request.top_logprobs or 0) if request.logprobs else None
    newer = request.max_completion_tokens is not None
    max_tokens = request.max_completion_tokens if newer else request.max_tokens
    names = {"logprobs": "top_logprobs"}
    if newer:
        names["max_tokens"] = "max_completion_tokens"
    return _sampling_params(request, max_tokens, logprobs, names)


def completion_sampling_params(request: CompletionRequest) -> SamplingParams:
    """Return the sampling parameters of a completion request.

    Raises:
        InvalidRequestError: a value is out of range.
    """
    given = request.max_tokens
    max_tokens = DEFAULT_COMPLETION_TOKENS if given is None else given
    return _sampling_params(request, max_tokens, request.logprobs, {})


def _sampling_params(
    request: SamplingFields, max_tokens: int | None, logprobs: int | None, names: dict[str, str]
) -> SamplingParams:
    if request.stream_options is not None and not request.stream:
        raise InvalidRequestError("stream_options needs stream: true.", param="stream_options")
    values = {name: getattr(request, name) for name in _PLAIN_FIELDS}
    values["repeat_penalty"] = request.repeat_penalty
    if request.repeat_penalty is None and request.repetition_penalty is not None:
        values["repeat_penalty"] = request.repetition_penalty
        names = {**names, "repeat_penalty": "repetition_penalty"}
    values["max_tokens"] = None if max_tokens == -1 else max_tokens
    values["logprobs"] = logprobs
    given = {name: value for name, value in values.items() if value is not None}
    try:
        return SamplingParams(**given)
    except InvalidRequestError as exc:
        raise _renamed(exc, names) from None


def _renamed(exc: InvalidRequestError, names: dict[str, str]) -> InvalidRequestError:
    if exc.param not in names:
        return exc
    message = str(exc).replace(exc.param, names[exc.param], 1)
    return InvalidRequestError(message, param=names[exc.param], code=exc.code)


def submit_options(request: SamplingFields, tenant: str) -> dict[str, Any]:
    """Return the keyword arguments of ``AsyncEngine.submit``: time limit and cache salt.

    Args:
        tenant: stands for the API key; requests of one key share cached prefixes unless they
            bring a ``cache_salt`` of their own.

    Raises:
        InvalidRequestError: a value is out of range.
    """
    salt, deadline = request.cache_salt, request.deadline_ms
    if salt is not None and not (0 < len(salt) <= MAX_SALT_LENGTH and salt.isprintable()):
        raise InvalidRequestError(
            f"cache_salt must be 1 to {MAX_SALT_LENGTH} printable characters.", param="cache_salt"
        )
    if deadline is not None and not 0 < deadline <= MAX_DEADLINE_MS:
        raise InvalidRequestError(
            f"deadline_ms must be above 0 and at most {MAX_DEADLINE_MS}.", param="deadline_ms"
        )
    return {
        "cache_salt": f"salt {salt}" if salt is not None else tenant,
        "timeout": None if deadline is None else deadline / 1000,
    }


def refuse_unsupported_chat(request: ChatCompletionRequest) -> None:
    """Raise InvalidRequestError if the request asks for what chat cannot do here."""
    response_format = request.response_format
    is_text = isinstance(response_format, dict) and response_format.get("type") == "text"
    unsupported = {
        "tools": bool(request.tools),
        "tool_choice": request.tool_choice not in (None, "none", "auto"),
        "functions": bool(request.functions),
        "function_call": request.function_call not in (None, "none", "auto"),
        "response_format": response_format is not None and not is_text,
        "modalities": request.modalities not in (None, ["text"]),
        "audio": request.audio is not None,
        "prediction": request.prediction is not None,
        "web_search_options": request.web_search_options is not None,
    }
    _refuse(unsupported)


def refuse_unsupported_completion(request: CompletionRequest) -> None:
    """Raise InvalidRequestError if the request asks for what completions cannot do here."""
    unsupported = {
        "suffix": bool(request.suffix),
        "best_of": request.best_of not in (None, request.n or 1),
        "logprobs": request.logprobs is not None and bool(request.echo),
    }
    _refuse(unsupported)


def _refuse(unsupported: dict[str, bool]) -> None:
    for name, is_asked in unsupported.items():
        if is_asked:
            hint = " together with echo" if name == "logprobs" else ""
            raise InvalidRequestError(
                f"{name} is not supported{hint} with this value; leave it out.",
                param=name,
                code="unsupported_parameter",
            )


def template_messages(messages: list[ChatMessage]) -> list[dict[str, Any]]:
    """Return the messages as a chat template reads them: plain dicts, text content.

    Raises:
        InvalidRequestError: there are none, one has no content, or a part is not text.
    """
    if not messages:
        raise InvalidRequestError("messages must hold at least one message.", param="messages")
    return [_template_message(message, f"messages[{i}]") for i, message in enumerate(messages)]


def _template_message(message: ChatMessage, where: str) -> dict[str, Any]:
    content = _text(message, where)
    # Templates know "system"; OpenAI renamed it "developer" for its newer models.
    role = "system" if message.role == "developer" else message.role
    result: dict[str, Any] = {"role": role, "content": content}
    for name in ("name", "tool_call_id", "reasoning_content"):
        if getattr(message, name) is not None:
            result[name] = getattr(message, name)
    if message.tool_calls:
        result["tool_calls"] = [
            {
                "id": call.id,
                "type": call.type,
                "function": {"name": call.function.name, "arguments": call.function.arguments},
            }
            for call in message.tool_calls
        ]
    return result


def _text(message: ChatMessage, where: str) -> str:
    if isinstance(message.content, str):
        return message.content
    if message.content is None:
        if message.role == "assistant" and message.tool_calls:
            return ""
        raise InvalidRequestError(f"{where}.content is required.", param=f"{where}.content")
    for i, part in enumerate(message.content):
        if part.type != "text" or part.text is None:
            raise InvalidRequestError(
                f"{where}.content[{i}]: only text parts are supported, got {part.type[:40]!r}.",
                param=f"{where}.content[{i}].type",
            )
    return "\n".join(part.text or "" for part in message.content)


def render_options(request: ChatCompletionRequest) -> dict[str, Any]:
    """Return the options of ``AsyncEngine.encode_chat`` that the request sets.

    Raises:
        InvalidRequestError: it asks to continue a message and to begin one.
    """
    goes_on = bool(request.continue_final_message)
    begins = request.add_generation_prompt
    if goes_on and begins:
        raise InvalidRequestError(
            "continue_final_message and add_generation_prompt exclude each other.",
            param="continue_final_message",
        )
    kwargs = dict(request.chat_template_kwargs or {})
    if request.reasoning_effort is not None:
        kwargs.setdefault("reasoning_effort", request.reasoning_effort)
    return {
        "add_generation_prompt": not goes_on if begins is None else begins,
        "continue_final_message": goes_on,
        "chat_template_kwargs": kwargs or None,
    }


def prompts(request: CompletionRequest, max_prompts: int) -> list[Prompt]:
    """Return the prompts of a completion request: one or many, each text or token ids.

    Raises:
        InvalidRequestError: there are none or too many, one has no tokens, or kinds are mixed.
    """
    prompt = request.prompt
    if isinstance(prompt, str):
        return [prompt]
    kinds = {type(item) for item in prompt}
    if kinds == {int}:
        return [_token_ids(prompt, "prompt")]
    if len(kinds) != 1:
        raise InvalidRequestError(
            "prompt must be a string, a list of strings, a list of token ids, or a list of such "
            "lists; not empty and not mixed.",
            param="prompt",
        )
    if len(prompt) > max_prompts:
        raise InvalidRequestError(
            f"prompt may hold at most {max_prompts} prompts, got {len(prompt)}.", param="prompt"
        )
    return [
        item if isinstance(item, str) else _token_ids(item, f"prompt[{i}]")
        for i, item in enumerate(prompt)
    ]


def _token_ids(ids: Any, where: str) -> list[int]:
    if not ids:
        raise InvalidRequestError(f"{where} must hold at least one token id.", param=where)
    if not all(0 <= token < 2**31 for token in ids):
        raise InvalidRequestError(
            f"{where} must hold token ids of the model.", param=where, code="invalid_token"
        )
    return list(ids)
