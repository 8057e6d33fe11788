"""The OpenAI wire format as Structs: what is read and what is written.

Reading checks types alone; `SamplingParams` checks ranges. A request field that is absent and one
that is null mean the same. Unknown fields are ignored; known ones that this server cannot honour
are read as Any, for `convert` to refuse by name.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from avllm.outputs import FinishReason


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of a streamed answer; ``include_usage`` adds a last chunk with the usage."""

    include_usage: bool | None = None


class SamplingFields(msgspec.Struct, frozen=True, kw_only=True):
    """The fields that chat and plain completions share; the last group are extensions."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[int, float] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None

    top_k: int | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    repetition_penalty: float | None = None
    repeat_last_n: int | None = None
    ignore_eos: bool | None = None
    stop_token_ids: list[int] | None = None
    cache_salt: str | None = None
    deadline_ms: float | None = None


class ContentPart(msgspec.Struct, frozen=True):
    """One part of a message's content; only ``text`` parts are served."""

    type: str
    text: str | None = None


class FunctionCall(msgspec.Struct, frozen=True):
    """The function that an assistant message called; ``arguments`` is JSON as a string."""

    name: str
    arguments: str


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """One tool call of an assistant message."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message of a conversation."""

    role: Literal["developer", "system", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None


class ChatCompletionRequest(SamplingFields, frozen=True, kw_only=True):
    """Body of ``POST /v1/chat/completions``."""

    messages: list[ChatMessage]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    reasoning_effort: str | None = None

    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None

    tools: Any = None
    tool_choice: Any = None
    functions: Any = None
    function_call: Any = None
    response_format: Any = None
    modalities: Any = None
    audio: Any = None
    prediction: Any = None
    web_search_options: Any = None


class CompletionRequest(SamplingFields, frozen=True, kw_only=True):
    """Body of ``POST /v1/completions``."""

    prompt: str | list[str | int | list[int]]
    echo: bool | None = None
    logprobs: int | None = None
    best_of: int | None = None
    suffix: Any = None


class CachedTokens(msgspec.Struct, frozen=True):
    """Details of the prompt tokens."""

    cached_tokens: int
    audio_tokens: int = 0


class CompletionDetails(msgspec.Struct, frozen=True):
    """Details of the generated tokens."""

    reasoning_tokens: int = 0
    audio_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class UsageBlock(msgspec.Struct, frozen=True):
    """Tokens that a request took."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens
    completion_tokens_details: CompletionDetails = CompletionDetails()


class Timings(msgspec.Struct, frozen=True):
    """Extension: what a request experienced; times in ms, rates in tokens per second."""

    queue_ms: float
    prompt_n: int
    prompt_ms: float
    prompt_per_second: float
    cache_n: int
    predicted_n: int
    predicted_ms: float
    predicted_per_second: float
    steps: int
    preemptions: int


class TopLogprobEntry(msgspec.Struct, frozen=True):
    """One alternative at a position."""

    token: str
    logprob: float
    bytes: list[int]


class LogprobEntry(msgspec.Struct, frozen=True):
    """One generated token and its alternatives."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprobEntry]


class ChatLogprobs(msgspec.Struct, frozen=True):
    """Logprobs of a chat choice."""

    content: list[LogprobEntry]
    refusal: None = None


class CompletionLogprobs(msgspec.Struct, frozen=True):
    """Logprobs of a completion choice: four lists of one length."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] | None
    text_offset: list[int]


class AssistantMessage(msgspec.Struct, frozen=True):
    """The answer of a chat choice."""

    content: str
    role: Literal["assistant"] = "assistant"
    refusal: None = None


class ChatChoice(msgspec.Struct, frozen=True):
    """One answer of a chat completion."""

    index: int
    message: AssistantMessage
    finish_reason: FinishReason
    logprobs: ChatLogprobs | None = None


class ChatCompletion(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of ``POST /v1/chat/completions``."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: UsageBlock
    timings: Timings


class ChatDelta(msgspec.Struct, frozen=True):
    """What a chunk adds to a message; absent fields add nothing."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET


class ChatChunkChoice(msgspec.Struct, frozen=True):
    """One choice of a chat chunk."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | None = None


class ChatCompletionChunk(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a streamed chat completion."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: UsageBlock | None | UnsetType = UNSET
    timings: Timings | UnsetType = UNSET


class CompletionChoice(msgspec.Struct, frozen=True):
    """One text of a completion, whole or as a piece of a stream."""

    text: str
    index: int
    logprobs: CompletionLogprobs | None = None
    finish_reason: FinishReason | None = None


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of ``POST /v1/completions``, and one event of its stream."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: UsageBlock | None | UnsetType = UNSET
    timings: Timings | UnsetType = UNSET


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """A served model; ``meta`` is an extension: figures of the model and this server."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "avllm"
    meta: dict[str, Any]


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of ``GET /v1/models``."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
