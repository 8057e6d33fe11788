"""The engine inside an asyncio program: many tasks, one of which is cancelled half-way."""

from __future__ import annotations

import asyncio

from avllm import AsyncEngine, SamplingParams


async def tell(engine: AsyncEngine, beginning: str, max_tokens: int) -> str:
    """Return the continuation of a text."""
    text = beginning
    async for delta in engine.stream(beginning, SamplingParams(max_tokens=max_tokens, seed=1)):
        text += delta.text
    return text


async def main() -> None:
    # Loading blocks, so a program that already serves something does it in a thread.
    engine = await asyncio.to_thread(AsyncEngine, "smollm2")
    async with engine:
        endless = asyncio.create_task(tell(engine, "A very long story:", max_tokens=2000))
        beginnings = ["The sea is", "The forest is", "The city is"]
        for text in await asyncio.gather(*(tell(engine, b, 24) for b in beginnings)):
            print(repr(text))

        endless.cancel()  # its place in the batch and its cells are free before the next step
        await asyncio.gather(endless, return_exceptions=True)
        metrics = engine.metrics.snapshot()
        print(f"{metrics.generation_tokens} tokens in {metrics.steps} steps")


asyncio.run(main())
