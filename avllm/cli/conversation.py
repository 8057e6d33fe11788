"""Conversation: the messages of a chat, and asking the next question."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from avllm import Engine, SamplingParams, TextDelta

Message = dict[str, str]


class Conversation:
    """A system prompt and the turns since; one thread.

    Args:
        engine: what answers.
        params: how its answers are sampled.
        system: system prompt, or None.
    """

    def __init__(self, engine: Engine, params: SamplingParams, system: str | None = None) -> None:
        self._engine = engine
        self._params = params
        self.messages: list[Message] = []
        self.set_system(system)

    def set_system(self, system: str | None) -> None:
        """Begin anew with this system prompt, or without one."""
        self._system = system
        self.clear()

    def clear(self) -> None:
        """Forget every turn."""
        system = [{"role": "system", "content": self._system}] if self._system else []
        self.messages = system

    def ask(self, text: str) -> Generator[TextDelta, None, None]:
        """Stream the answer to `text`.

        Closing the generator stops the answer; what had come stays in the conversation. A question
        that got no answer, because it failed or was stopped at once, is forgotten.
        """
        question = {"role": "user", "content": text}
        answer = ""
        try:
            for delta in self._engine.chat_stream([*self.messages, question], self._params):
                answer += delta.text
                yield delta
        finally:
            if answer:
                self.messages += [question, {"role": "assistant", "content": answer}]
