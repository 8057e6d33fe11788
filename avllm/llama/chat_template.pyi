from collections.abc import Sequence
from typing import Any

from avllm.llama.model import Model

class ChatTemplate:
    model: Model
    def __init__(self, model: Model, source: str = "") -> None: ...
    @property
    def source(self) -> str: ...
    @property
    def is_explicit(self) -> bool: ...
    def render(
        self,
        messages: Sequence[dict[str, Any]],
        *,
        tools: Sequence[dict[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        chat_template_kwargs: dict[str, Any] | None = None,
    ) -> str: ...
