"""AsyncEngine on the real default model."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from avllm import AsyncEngine, EngineConfig, SamplingParams
from avllm.errors import DeadlineExceededError, EngineStoppedError, InvalidRequestError

FOX = "The quick brown fox jumps"
GREEDY = SamplingParams(max_tokens=4, temperature=0)
ENDLESS = SamplingParams(max_tokens=2000, temperature=0, ignore_eos=True)


@pytest.fixture(scope="module")
def engine(model_path: Path) -> Iterator[AsyncEngine]:
    engine = AsyncEngine(model_path, EngineConfig(max_num_seqs=16, context_length=4096))
    yield engine
    engine.close()


def test_it_is_a_context_manager(model_path: Path) -> None:
    async def main() -> None:
        async with AsyncEngine(model_path, EngineConfig(context_length=512)) as engine:
            assert (await engine.generate(FOX, GREEDY)).text == " over a lazy dog"
            text = "".join([delta.text async for delta in engine.stream(FOX, GREEDY)])
            assert text == " over a lazy dog"
        with pytest.raises(EngineStoppedError):
            await engine.generate(FOX, GREEDY)

    asyncio.run(main())


def test_chat_is_awaited(engine: AsyncEngine) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    params = SamplingParams(max_tokens=20, temperature=0)

    async def main() -> None:
        output = await engine.chat(messages, params)
        assert output.text == "Hello! How can I help you today?"
        deltas = [delta async for delta in engine.chat_stream(messages, params)]
        assert "".join(delta.text for delta in deltas) == output.text
        assert deltas[-1].usage is not None
        assert deltas[-1].usage.cached_tokens == output.usage.prompt_tokens - 1

    asyncio.run(main())


def test_tasks_share_steps(engine: AsyncEngine) -> None:
    async def main() -> None:
        before = engine.metrics.snapshot()
        params = SamplingParams(max_tokens=16, temperature=0, ignore_eos=True)
        jobs = [engine.generate(f"{number}. {FOX}", params) for number in range(16)]
        await asyncio.gather(*jobs)
        after = engine.metrics.snapshot()
        assert after.generation_tokens - before.generation_tokens == 256
        assert after.decode_steps - before.decode_steps < 80

    asyncio.run(main())


def test_a_cancelled_task_frees_its_place(engine: AsyncEngine) -> None:
    async def main() -> None:
        tasks = [asyncio.create_task(engine.generate(FOX, ENDLESS)) for _ in range(20)]
        while engine.metrics.snapshot().running < 16:  # four of them wait
            await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        assert all(
            isinstance(result, asyncio.CancelledError)
            for result in await asyncio.gather(*tasks, return_exceptions=True)
        )
        await _idle(engine)

    asyncio.run(main())


def test_leaving_a_stream_frees_its_place(engine: AsyncEngine) -> None:
    async def main() -> None:
        stream = engine.stream(FOX, ENDLESS)
        async for _ in stream:
            break
        await stream.aclose()
        await _idle(engine)

    asyncio.run(main())


def test_a_timeout_ends_the_request(engine: AsyncEngine) -> None:
    async def main() -> None:
        request = await engine.submit(FOX, ENDLESS, timeout=0.5)
        with pytest.raises(DeadlineExceededError, match=r"deadline of 0\.5 s"):
            await request.result()
        await _idle(engine)

    asyncio.run(main())


def test_errors_are_raised_by_submit(engine: AsyncEngine) -> None:
    async def main() -> None:
        with pytest.raises(InvalidRequestError):
            await engine.submit([49152], GREEDY)

    asyncio.run(main())


def test_several_event_loops_use_one_engine(engine: AsyncEngine) -> None:
    async def main() -> str:
        return (await engine.generate(FOX, GREEDY)).text

    assert [asyncio.run(main()) for _ in range(5)] == [" over a lazy dog"] * 5


def test_a_thousand_cancels_at_random_moments_leak_no_cell(engine: AsyncEngine) -> None:
    dice = random.Random(4)

    async def one(number: int) -> None:
        length = dice.randint(1, 10)
        prompt = [(number * 31 + i * 7) % 40000 + 100 for i in range(length)]
        request = await engine.submit(prompt, ENDLESS)
        for _ in range(dice.randint(0, 3)):
            await anext(request)
        await asyncio.sleep(dice.random() * 0.05)
        request.cancel()

    async def main() -> None:
        places = asyncio.Semaphore(48)

        async def limited(number: int) -> None:
            async with places:
                await one(number)

        await asyncio.gather(*(limited(number) for number in range(1000)))
        await _idle(engine)

    asyncio.run(main())


async def _idle(engine: AsyncEngine) -> None:
    for _ in range(2000):
        snapshot = engine.metrics.snapshot()
        if snapshot.running == snapshot.waiting == snapshot.parked == 0:
            assert snapshot.kv_cells_used == 0
            return
        await asyncio.sleep(0.01)
    pytest.fail("the engine did not come to rest")
