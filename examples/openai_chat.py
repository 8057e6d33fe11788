"""Ask a running `avllm serve` with the official client: ``pip install openai``."""

from __future__ import annotations

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8080/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "none"),  # any text, unless the server asks for a key
)

answer = client.chat.completions.create(
    model="smollm2",
    messages=[{"role": "user", "content": "Name three animals that live in the sea."}],
    max_tokens=48,
    temperature=0,
)
print(answer.choices[0].message.content)
if answer.usage is not None:
    print(f"{answer.usage.prompt_tokens} prompt tokens, {answer.usage.completion_tokens} generated")
