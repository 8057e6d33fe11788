"""Engine: the blocking face of an engine, for threads."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, overload

from typing_extensions import Self

from avllm.engine.base_engine import BaseEngine, Prompt
from avllm.engine.request import GenerationRequest, SequenceUpdate
from avllm.engine.text_stream import OutputCollector, TextStream
from avllm.outputs import RequestOutput, TextDelta
from avllm.sampling_params import SamplingParams

_DEFAULT = SamplingParams()


class Engine(BaseEngine):
    """A model served to many threads at once.

    Thread-safe: any number of threads may call at the same time, and their requests share steps.
    Use it as a context manager, or call ``close``.

        with Engine("smollm2") as engine:
            print(engine.generate("The quick brown fox jumps", SamplingParams(max_tokens=8)).text)
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @overload
    def generate(  # type: ignore[overload-overlap]  # a str is a sequence of str, too
        self, prompt: str, params: SamplingParams = ...
    ) -> RequestOutput: ...
    @overload
    def generate(
        self, prompt: Sequence[str] | Sequence[Sequence[int]], params: SamplingParams = ...
    ) -> list[RequestOutput]: ...
    @overload
    def generate(self, prompt: Sequence[int], params: SamplingParams = ...) -> RequestOutput: ...
    def generate(self, prompt: Any, params: SamplingParams = _DEFAULT) -> Any:
        """Generate to the end.

        Args:
            prompt: text or token ids; or a list of those, which share the batch.
            params: how to sample.

        Returns:
            A RequestOutput, or a list of them in the order of the prompts.

        Raises:
            InvalidRequestError, ContextLengthError, EngineOverloadedError, EngineStoppedError
        """
        if isinstance(prompt, str) or (len(prompt) > 0 and isinstance(prompt[0], int)):
            return self._collect(self._start(prompt, params))
        streams: list[_RequestStream] = []
        try:
            for item in prompt:
                streams.append(self._start(item, params))
            return [self._collect(stream) for stream in streams]
        finally:
            for stream in streams:
                stream.close()

    def stream(self, prompt: Prompt, params: SamplingParams = _DEFAULT) -> Iterator[TextDelta]:
        """Yield text as it is generated; leaving the loop ends the request.

        With ``n > 1`` the sequences come interleaved: look at ``delta.index``.

        Raises:
            As ``generate``; what is wrong with the request is raised by the call itself.
        """
        return self._start(prompt, params)

    def chat(
        self,
        messages: Sequence[dict[str, Any]],
        params: SamplingParams = _DEFAULT,
        **render_options: Any,
    ) -> RequestOutput:
        """Generate the next message of a conversation in OpenAI's form, to the end."""
        return self._collect(self._start(self.encode_chat(messages, **render_options), params))

    def chat_stream(
        self,
        messages: Sequence[dict[str, Any]],
        params: SamplingParams = _DEFAULT,
        **render_options: Any,
    ) -> Iterator[TextDelta]:
        """Yield the next message of a conversation as it is generated."""
        return self._start(self.encode_chat(messages, **render_options), params)

    def _start(self, prompt: Prompt, params: SamplingParams) -> _RequestStream:
        return _RequestStream(self, prompt, params)

    def _collect(self, stream: _RequestStream) -> RequestOutput:
        request = stream.request
        collector = OutputCollector(tuple(request.prompt_token_ids), request.params.n)
        with stream:
            for delta in stream:
                collector.add(delta)
        return collector.output()


class _RequestStream(Iterator[TextDelta]):
    """The deltas of one request, as an iterator that cancels it when it is dropped."""

    def __init__(self, engine: Engine, prompt: Prompt, params: SamplingParams) -> None:
        self._updates: queue.SimpleQueue[SequenceUpdate] = queue.SimpleQueue()
        put = self._updates.put
        self._core = engine._core
        self.request: GenerationRequest = engine._submit(
            prompt, params, lambda _, update: put(update)
        )
        request, core = self.request, self._core
        self._text = TextStream(
            request, engine.tokenizer, lambda index: core.cancel(request, index)
        )

    def __next__(self) -> TextDelta:
        while not self._text.is_finished:
            try:
                delta = self._text.push(self._updates.get())
            except BaseException:  # also Ctrl-C while waiting
                self.close()
                raise
            if delta is not None:
                return delta
        raise StopIteration

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_text"):
            self.close()

    def close(self) -> None:
        """End the request if it still runs."""
        if not self._text.is_finished:
            self._core.cancel(self.request)
