"""The routes of the OpenAI dialect: models, chat completions, completions."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from avllm.sampling_params import SamplingParams

from ..limits import read_json
from ..responses import JSONResponse
from ..state import ServerState
from ..streaming import EventEncoder, EventStream, collect
from . import convert
from .chat import ChatEncoder, chat_completion
from .completions import CompletionEncoder, completion
from .events import Head
from .schemas import (
    ChatCompletionRequest,
    CompletionRequest,
    ModelCard,
    ModelList,
    SamplingFields,
)

if TYPE_CHECKING:
    from avllm.engine.async_engine import AsyncEngine, AsyncRequest

_chat_decoder = msgspec.json.Decoder(ChatCompletionRequest)
_completion_decoder = msgspec.json.Decoder(CompletionRequest)


class OpenAIRoutes:
    """Endpoints over one `ServerState`."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    def routes(self) -> list[BaseRoute]:
        """Return the routing table of this dialect."""
        return [
            Route("/v1/models", self.list_models),
            Route("/v1/models/{model_id:path}", self.retrieve_model),
            Route("/v1/chat/completions", self.create_chat_completion, methods=["POST"]),
            Route("/v1/completions", self.create_completion, methods=["POST"]),
        ]

    async def list_models(self, request: Request) -> JSONResponse:
        """``GET /v1/models``."""
        return JSONResponse(ModelList(data=[self._card()]))

    async def retrieve_model(self, request: Request) -> JSONResponse:
        """``GET /v1/models/{id}``; the id may hold slashes, plain or percent-encoded."""
        self._state.check_model(request.path_params["model_id"])
        return JSONResponse(self._card())

    async def create_chat_completion(self, request: Request) -> ASGIApp:
        """``POST /v1/chat/completions``."""
        engine = self._state.engine
        body = await read_json(request, _chat_decoder, self._state.config)
        self._state.check_model(body.model)
        convert.refuse_unsupported_chat(body)
        params = convert.chat_sampling_params(body)
        submit_options = convert.submit_options(body, _tenant(request))
        engine.check_capacity()
        messages = convert.template_messages(body.messages)
        options = convert.render_options(body)
        # Rendering and tokenizing take milliseconds for a long chat: not on the event loop.
        prompt = await asyncio.to_thread(engine.encode_chat, messages, **options)
        requests = await _submit_all(engine, [prompt], params, submit_options)
        head = self._head("chatcmpl")
        if body.stream:
            usage = _include_usage(body)
            return self._stream(requests, ChatEncoder(head, n=params.n, include_usage=usage))
        (output,) = await collect(requests, request.receive)
        return JSONResponse(chat_completion(head, output))

    async def create_completion(self, request: Request) -> ASGIApp:
        """``POST /v1/completions``."""
        engine = self._state.engine
        body = await read_json(request, _completion_decoder, self._state.config)
        self._state.check_model(body.model)
        convert.refuse_unsupported_completion(body)
        params = convert.completion_sampling_params(body)
        submit_options = convert.submit_options(body, _tenant(request))
        prompts = convert.prompts(body, self._state.config.max_prompts)
        requests = await _submit_all(engine, prompts, params, submit_options)
        echoes = [_text(engine, prompt) if body.echo else "" for prompt in prompts]
        head = self._head("cmpl")
        if body.stream:
            usage = _include_usage(body)
            encoder = CompletionEncoder(head, n=params.n, echoes=echoes, include_usage=usage)
            return self._stream(requests, encoder)
        outputs = await collect(requests, request.receive)
        return JSONResponse(completion(head, outputs, echoes))

    def _stream(self, requests: Sequence[AsyncRequest], encoder: EventEncoder) -> EventStream:
        return EventStream(requests, encoder, self._state.config)

    def _head(self, prefix: str) -> Head:
        return Head(f"{prefix}-{uuid.uuid4().hex}", int(time.time()), self._state.model_name)

    def _card(self) -> ModelCard:
        engine = self._state.engine
        info = engine.model_info
        meta: dict[str, Any] = {
            "context_length": engine.context_length,
            "context_length_trained": info.context_length,
            "max_num_seqs": engine.config.max_num_seqs,
            "architecture": info.architecture,
            "description": info.description,
            "n_params": info.n_params,
            "size_bytes": info.size_bytes,
            "vocab_size": info.vocab_size,
        }
        return ModelCard(id=self._state.model_name, created=self._state.created, meta=meta)


def _include_usage(body: SamplingFields) -> bool:
    return bool(body.stream_options and body.stream_options.include_usage)


def _text(engine: AsyncEngine, prompt: convert.Prompt) -> str:
    return prompt if isinstance(prompt, str) else engine.tokenizer.decode(prompt)


def _tenant(request: Request) -> str:
    tenant: str = getattr(request.state, "tenant", "")
    return tenant


async def _submit_all(
    engine: AsyncEngine,
    prompts: Sequence[convert.Prompt],
    params: SamplingParams,
    options: dict[str, Any],
) -> list[AsyncRequest]:
    requests: list[AsyncRequest] = []
    try:
        for prompt in prompts:
            requests.append(await engine.submit(prompt, params, **options))
    except BaseException:
        for request in requests:
            request.cancel()
        raise
    return requests
