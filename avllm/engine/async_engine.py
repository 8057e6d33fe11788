"""AsyncEngine: the awaitable face of an engine, for tasks of any number of event loops."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Any

from typing_extensions import Self

from avllm.config import EngineConfig
from avllm.engine.base_engine import BaseEngine, Prompt
from avllm.engine.core import EngineCore
from avllm.engine.request import GenerationRequest, SequenceUpdate
from avllm.engine.text_stream import OutputCollector, TextStream
from avllm.outputs import RequestOutput, TextDelta
from avllm.sampling_params import SamplingParams

_DEFAULT = SamplingParams()
# Longer prompts are tokenized on a helper thread: a megabyte takes tens of milliseconds.
_INLINE_CHARACTERS = 4096


class AsyncEngine(BaseEngine):
    """A model served to many tasks at once.

    The constructor loads the model and blocks: make it before the loop, or in a thread. Methods
    may be used from any event loop. A cancelled task frees the places of its sequences before
    the next step.

        async with AsyncEngine("smollm2") as engine:
            async for delta in engine.stream("Once upon a time"):
                print(delta.text, end="", flush=True)
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = "smollm2",
        config: EngineConfig | None = None,
        *,
        on_progress: Callable[[float], Any] | None = None,
    ) -> None:
        super().__init__(model, config, on_progress=on_progress)
        self._mailboxes: dict[asyncio.AbstractEventLoop, _Mailbox] = {}
        self._mailboxes_lock = threading.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.close)

    async def submit(
        self,
        prompt: Prompt,
        params: SamplingParams = _DEFAULT,
        *,
        timeout: float | None = None,
        cache_salt: str = "",
    ) -> AsyncRequest:
        """Send a request and return its stream of deltas.

        Args:
            prompt: text, or token ids as they are.
            params: how to sample.
            timeout: seconds after which the request is ended, or None.
            cache_salt: cached prefixes are shared only among requests with equal salts.

        Raises:
            InvalidRequestError, ContextLengthError: something is wrong with it.
            EngineOverloadedError: the queue is full; ``retry_after`` says when to come back.
            EngineStoppedError: the engine is closing or closed.
        """
        loop = asyncio.get_running_loop()
        request = AsyncRequest(self._core, self._mailbox(loop))
        send = functools.partial(
            self._submit, prompt, params, request.receive, timeout=timeout, cache_salt=cache_salt
        )
        if isinstance(prompt, str) and len(prompt) > _INLINE_CHARACTERS:
            sent = await self._send_elsewhere(send)
        else:
            sent = send()
        request.begin(sent, TextStream(sent, self.tokenizer, request.stop_sequence))
        return request

    async def _send_elsewhere(self, send: Callable[[], GenerationRequest]) -> GenerationRequest:
        sending = asyncio.ensure_future(asyncio.to_thread(send))
        try:
            return await asyncio.shield(sending)
        except asyncio.CancelledError:
            # The helper thread goes on, and what it sends has no reader any more.
            sending.add_done_callback(self._cancel_sent)
            raise

    def _cancel_sent(self, sending: asyncio.Future[GenerationRequest]) -> None:
        if not sending.cancelled() and sending.exception() is None:
            self._core.cancel(sending.result())

    async def generate(self, prompt: Prompt, params: SamplingParams = _DEFAULT) -> RequestOutput:
        """Generate to the end; the errors are those of ``submit``."""
        return await (await self.submit(prompt, params)).result()

    async def stream(
        self, prompt: Prompt, params: SamplingParams = _DEFAULT
    ) -> AsyncIterator[TextDelta]:
        """Yield text as it is generated; leaving the loop ends the request."""
        request = await self.submit(prompt, params)
        try:
            async for delta in request:
                yield delta
        finally:
            request.cancel()

    async def chat(
        self,
        messages: Sequence[dict[str, Any]],
        params: SamplingParams = _DEFAULT,
        **render_options: Any,
    ) -> RequestOutput:
        """Generate the next message of a conversation in OpenAI's form, to the end."""
        return await self.generate(await self._chat_prompt(messages, render_options), params)

    async def chat_stream(
        self,
        messages: Sequence[dict[str, Any]],
        params: SamplingParams = _DEFAULT,
        **render_options: Any,
    ) -> AsyncIterator[TextDelta]:
        """Yield the next message of a conversation as it is generated."""
        prompt = await self._chat_prompt(messages, render_options)
        async for delta in self.stream(prompt, params):
            yield delta

    async def _chat_prompt(
        self, messages: Sequence[dict[str, Any]], options: dict[str, Any]
    ) -> list[int]:
        return await asyncio.to_thread(self.encode_chat, messages, **options)

    def _mailbox(self, loop: asyncio.AbstractEventLoop) -> _Mailbox:
        with self._mailboxes_lock:
            for known in [known for known in self._mailboxes if known.is_closed()]:
                self._core.remove_flusher(self._mailboxes.pop(known))
            mailbox = self._mailboxes.get(loop)
            if mailbox is None:
                mailbox = self._mailboxes[loop] = _Mailbox(loop)
                self._core.add_flusher(mailbox, mailbox.flush)
            return mailbox


class _Mailbox:
    """Carries the updates of a step to one event loop with a single wake-up."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._pending: list[tuple[AsyncRequest, SequenceUpdate]] = []

    def post(self, request: AsyncRequest, update: SequenceUpdate) -> None:
        """Keep an update for the next flush. Engine thread."""
        self._pending.append((request, update))

    def flush(self) -> None:
        """Send what was kept. Engine thread, once a step."""
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        try:
            self._loop.call_soon_threadsafe(self._deliver, pending)
        except RuntimeError:  # the loop is closed: nobody listens any more
            for request, _ in pending:
                request.cancel()

    @staticmethod
    def _deliver(pending: list[tuple[AsyncRequest, SequenceUpdate]]) -> None:
        for request, update in pending:
            request.deliver(update)


class AsyncRequest:
    """One submitted request: an async iterator over the deltas of its n sequences.

    Used on the event loop that submitted it, save for ``cancel``, which any thread may call.

    Attributes:
        prompt_token_ids: the prompt as the model sees it.
    """

    def __init__(self, core: EngineCore, mailbox: _Mailbox) -> None:
        self._core = core
        self._mailbox = mailbox
        self._updates: deque[SequenceUpdate] = deque()
        self._arrived = asyncio.Event()
        self._request: GenerationRequest | None = None
        self._text: TextStream | None = None
        self._is_cancelled = False
        self.prompt_token_ids: tuple[int, ...] = ()

    def begin(self, request: GenerationRequest, text: TextStream) -> None:
        """Complete the object once the engine has accepted the request."""
        self._request, self._text = request, text
        self.prompt_token_ids = tuple(request.prompt_token_ids)

    def receive(self, _: GenerationRequest, update: SequenceUpdate) -> None:
        """Take an update on the engine thread."""
        self._mailbox.post(self, update)

    def deliver(self, update: SequenceUpdate) -> None:
        """Take an update on the event loop."""
        self._updates.append(update)
        self._arrived.set()

    def stop_sequence(self, index: int) -> None:
        """End one sequence: a stop string was found in its text."""
        assert self._request is not None
        self._core.cancel(self._request, index)

    def cancel(self) -> None:
        """End the request before the next step. Idempotent, from any thread."""
        if self._request is None or self._is_cancelled:
            return
        self._is_cancelled = True
        if self._text is None or not self._text.is_finished:
            self._core.cancel(self._request)

    async def result(self) -> RequestOutput:
        """Wait for the end of every sequence and return the whole."""
        assert self._request is not None
        collector = OutputCollector(self.prompt_token_ids, self._request.params.n)
        async for delta in self:
            collector.add(delta)
        return collector.output()

    def next_ready(self) -> TextDelta | None:
        """Return a delta that is there already, or None: a writer can join several in one send.

        Raises:
            EngineError: the engine could not go on with the request.
        """
        assert self._text is not None
        while self._updates:
            delta = self._text.push(self._updates.popleft())
            if delta is not None:
                return delta
        return None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TextDelta:
        assert self._text is not None
        try:
            while True:
                delta = self.next_ready()
                if delta is not None:
                    return delta
                if self._text.is_finished:
                    raise StopAsyncIteration
                self._arrived.clear()
                await self._arrived.wait()
        except StopAsyncIteration:
            raise
        except BaseException:  # an error of the engine, or the waiting task was cancelled
            self.cancel()
            raise
