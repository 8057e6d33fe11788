"""An engine for the command line's tests: echoes, counts, can be slow or fail."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

from avllm.config import EngineConfig
from avllm.errors import ContextLengthError
from avllm.outputs import CompletionOutput, RequestOutput, RequestTimings, TextDelta, Usage
from avllm.sampling_params import SamplingParams

TIMINGS = RequestTimings(queue_seconds=0.01, prefill_seconds=0.09, decode_seconds=0.5, steps=3)


class FakeEngine:
    """Answers with the words of the prompt in upper case.

    The prompt ``forever`` is answered without end, ``too long`` is refused.
    """

    opened: list[FakeEngine] = []

    def __init__(
        self,
        model: str,
        config: EngineConfig | None = None,
        *,
        on_progress: Callable[[float], bool] | None = None,
    ) -> None:
        self.model = model
        self.config = config
        self.params: list[SamplingParams] = []
        self.conversations: list[list[dict[str, str]]] = []
        self.cancelled = 0
        self.closed = False
        FakeEngine.opened.append(self)
        if on_progress is not None:
            on_progress(1.0)

    def __enter__(self) -> FakeEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.closed = True

    def generate(self, prompt: str, params: SamplingParams) -> RequestOutput:
        outputs = tuple(
            CompletionOutput(i, f"{prompt.upper()} {i}", (1, 2), "stop") for i in range(params.n)
        )
        return RequestOutput((1,), outputs, Usage(1, 2 * params.n))

    def stream(self, prompt: str, params: SamplingParams) -> Iterator[TextDelta]:
        self.params.append(params)
        if prompt == "too long":
            raise ContextLengthError("the prompt has 9,000 tokens and 8,192 fit.")
        words = prompt.upper().split(" ")
        try:
            while prompt == "forever":
                yield TextDelta(0, "again ")
                time.sleep(0.01)
            for word in words[:-1]:
                yield TextDelta(0, f"{word} ")
        except GeneratorExit:
            self.cancelled += 1
            raise
        yield TextDelta(
            0, words[-1], finish_reason="stop", usage=Usage(5, len(words)), timings=TIMINGS
        )

    def chat_stream(
        self, messages: Sequence[dict[str, str]], params: SamplingParams
    ) -> Iterator[TextDelta]:
        self.conversations.append([dict(message) for message in messages])
        yield from self.stream(messages[-1]["content"], params)


def model_file(folder: Path) -> Path:
    """Write a file that passes for a model where nobody loads it."""
    path = folder / "fake.gguf"
    path.write_bytes(b"GGUF")
    return path
