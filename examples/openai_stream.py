"""Stream eight answers at once from a running `avllm serve`; they share its batch."""

from __future__ import annotations

import asyncio
import os

from openai import AsyncOpenAI

ANIMALS = ["fox", "dog", "owl", "whale", "ant", "bee", "frog", "cat"]


async def describe(client: AsyncOpenAI, animal: str) -> str:
    """Return one sentence about an animal, gathered from the stream."""
    stream = await client.chat.completions.create(
        model="smollm2",
        messages=[{"role": "user", "content": f"Describe a {animal} in one sentence."}],
        max_tokens=32,
        stream=True,
    )
    text = ""
    async for chunk in stream:
        text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
    return text


async def main() -> None:
    client = AsyncOpenAI(
        base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8080/v1"),
        api_key=os.environ.get("OPENAI_API_KEY", "none"),
    )
    async with client:
        answers = await asyncio.gather(*(describe(client, animal) for animal in ANIMALS))
    for animal, answer in zip(ANIMALS, answers, strict=True):
        print(f"{animal}: {answer}")


asyncio.run(main())
