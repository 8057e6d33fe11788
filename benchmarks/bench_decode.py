"""Decode speed of the engine beside llama-batched-bench of the same llama.cpp."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from peers.batched_bench import decode_speed

from avllm import Engine, EngineConfig, SamplingParams
from avllm.config import default_threads

PROMPT = 60
GENERATE = 64


@pytest.fixture(scope="module")
def engine(model_file: Path) -> Iterator[Engine]:
    # Prompts are computed at once, so that all sequences decode together for nearly all the time.
    config = EngineConfig(context_length=8192, prefix_cache=False, itl_target_ms=5000)
    with Engine(model_file, config) as engine:
        yield engine


@pytest.mark.parametrize("temperature", [0.0, 0.8], ids=["greedy", "sampled"])
@pytest.mark.parametrize("sequences", [1, 8, 16, 32])
@pytest.mark.benchmark(group="decode")
def bench_decode(
    engine: Engine,
    peers: Path,
    model_file: Path,
    compare: Callable[..., None],
    sequences: int,
    temperature: float,
) -> None:
    """Tokens per second over all sequences while all of them decode, on one shared pool."""

    def theirs() -> dict[str, float]:
        return decode_speed(
            peers / "llama-batched-bench",
            model_file,
            sequences=sequences,
            prompt=PROMPT,
            generate=GENERATE,
            threads=default_threads(),
            unified=True,
        )

    params = SamplingParams(max_tokens=GENERATE, temperature=temperature, seed=1, ignore_eos=True)
    mode = "sampled" if temperature else "greedy"
    title = f"decode, {sequences} sequences, {mode}"
    compare(title, lambda: _ours(engine, sequences, params), theirs)


def _ours(engine: Engine, sequences: int, params: SamplingParams) -> dict[str, float]:
    before = engine.metrics.snapshot()
    arrivals: list[list[float]] = [[] for _ in range(sequences)]
    threads = [
        threading.Thread(target=_follow, args=(engine, _prompt(engine, i), params, arrivals[i]))
        for i in range(sequences)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = engine.metrics.snapshot()
    outside = after.step_overhead_seconds - before.step_overhead_seconds
    inside = after.decode_call_seconds - before.decode_call_seconds
    return {
        "decode": _speed(arrivals),
        "outside llama_decode, percent": 100 * outside / (inside + outside),
    }


def _speed(arrivals: list[list[float]]) -> float:
    # Only while everybody decodes: from the last first token to the first last token.
    start = max(times[0] for times in arrivals)
    end = min(times[-1] for times in arrivals)
    return sum(start < at <= end for times in arrivals for at in times) / (end - start)


def _follow(engine: Engine, prompt: Any, params: SamplingParams, arrivals: list[float]) -> None:
    for delta in engine.stream(prompt, params):
        arrivals.extend([time.perf_counter()] * len(delta.token_ids))


def _prompt(engine: Engine, number: int) -> list[int]:
    tokens = engine.tokenizer.encode(f"{number}: " + "The quick brown fox jumps over it. " * 20)
    return list(tokens[:PROMPT])
