"""Whole servers beside each other: avllm and llama-server of the same llama.cpp, over HTTP.

Prompts differ from round to round, so that every round is cold.
"""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from peers.servers import avllm_server, llama_server
from workload import StreamResult, run_all

from avllm.config import default_threads

Server = Callable[..., Any]
_rounds = itertools.count(1)

# One token each in the default model's vocabulary, so that lengths are known.
_WORDS = [
    "time",
    "way",
    "day",
    "man",
    "world",
    "life",
    "hand",
    "part",
    "child",
    "eye",
    "woman",
    "place",
    "work",
    "week",
    "case",
    "point",
]


@pytest.fixture(params=["separate", "unified"])
def pool(request: pytest.FixtureRequest) -> str:
    """How llama-server is told to keep its cells; avllm has one pool always."""
    mode: str = request.param
    return mode


@pytest.mark.benchmark(group="common system prompt")
def bench_common_system_prompt(
    compare: Callable[..., None], peers: Path, model_file: Path, pool: str
) -> None:
    """16 cold requests at once: 420 common tokens, 20 own, 16 generated."""

    def measure(url: str) -> dict[str, float]:
        common = _text(420, seed=next(_rounds))
        bodies = [_body(common + _text(20, seed=1000 + i), 16) for i in range(16)]
        results = _checked(run_all(url, bodies))
        start = min(result.started for result in results)
        return {"seconds to the last token": max(r.arrivals[-1] for r in results) - start}

    limits = {"parallel": 16, "cells": 8192, "threads": default_threads()}
    tool = peers / "llama-server"
    with (
        avllm_server(model_file, **limits) as ours,
        llama_server(tool, model_file, unified=pool == "unified", **limits) as theirs,
    ):
        title = f"common system prompt, peer {pool}"
        compare(title, lambda: measure(ours), lambda: measure(theirs))


@pytest.mark.benchmark(group="long prompts beside streams")
def bench_long_prompts_beside_streams(
    compare: Callable[..., None], peers: Path, model_file: Path, pool: str
) -> None:
    """Four streams run; after two seconds two prompts of 638 tokens arrive."""

    def measure(url: str) -> dict[str, float]:
        seed = 10 * next(_rounds)
        streams = [_body(_text(20, seed=seed + i), 250) for i in range(4)]
        prompts = [_body(_text(638, seed=seed + 5 + i), 8) for i in range(2)]
        results = _checked(run_all(url, [*streams, *prompts], [0.0] * 4 + [2.0] * 2))
        return {
            "longest gap, ms": 1000 * max(result.longest_gap for result in results[:4]),
            "median gap, ms": 1000 * statistics.median(_gaps(results[:4])),
            "long prompts' TTFT, s": max(r.time_to_first_token for r in results[4:]),
        }

    limits = {"parallel": 8, "cells": 8192, "threads": default_threads()}
    tool = peers / "llama-server"
    with (
        avllm_server(model_file, **limits) as ours,
        llama_server(tool, model_file, unified=pool == "unified", **limits) as theirs,
    ):
        title = f"long prompts beside streams, peer {pool}"
        compare(title, lambda: measure(ours), lambda: measure(theirs))


@pytest.mark.parametrize("clients", [8, 32])
@pytest.mark.benchmark(group="unique prompts")
def bench_unique_prompts(
    compare: Callable[..., None], peers: Path, model_file: Path, clients: int
) -> None:
    """Unique prompts of 60 tokens, 64 generated: tokens per second out, prompts included."""

    def measure(url: str) -> dict[str, float]:
        seed = 100 * next(_rounds)
        bodies = [_body(_text(60, seed=seed + i), 64) for i in range(clients)]
        results = _checked(run_all(url, bodies))
        seconds = max(r.arrivals[-1] for r in results) - min(r.started for r in results)
        return {
            "tokens/s out": clients * 64 / seconds,
            "median gap, ms": 1000 * statistics.median(_gaps(results)),
            "median TTFT, s": statistics.median(r.time_to_first_token for r in results),
        }

    limits = {"parallel": clients, "cells": 8192, "threads": default_threads()}
    with (
        avllm_server(model_file, **limits) as ours,
        llama_server(peers / "llama-server", model_file, unified=True, **limits) as theirs,
    ):
        compare(f"{clients} unique prompts", lambda: measure(ours), lambda: measure(theirs))


@pytest.mark.benchmark(group="cache pressure")
def bench_cache_pressure(compare: Callable[..., None], peers: Path, model_file: Path) -> None:
    """16 requests of 250 tokens on 1,024 cells: four times what the KV cache holds."""
    with avllm_server(model_file, parallel=16, cells=8192, threads=default_threads()) as roomy:
        expected = [result.text for result in _checked(run_all(roomy, _pressing()))]

    def measure(url: str) -> dict[str, float]:
        results = run_all(url, _pressing())
        same = sum(r.text == text for r, text in zip(results, expected, strict=True))
        failed = sum(r.error is not None or not r.arrivals for r in results)
        return {"failed of 16": failed, "texts equal to the unpressured run": same}

    limits = {"parallel": 16, "cells": 1024, "threads": default_threads()}
    with (
        avllm_server(model_file, **limits, arguments=("--no-prefix-cache",)) as ours,
        llama_server(peers / "llama-server", model_file, unified=True, **limits) as theirs,
    ):
        compare("cache pressure", lambda: measure(ours), lambda: measure(theirs))


@pytest.mark.benchmark(group="many at once")
def bench_thousand_requests(benchmark: Any, model_file: Path, record_figures: Any) -> None:
    """1,000 requests at once on 32 sequences: none lost, and /health answers meanwhile."""
    limits = {"parallel": 32, "cells": 8192, "threads": default_threads()}
    with avllm_server(model_file, **limits) as url:
        bodies = [_body(_text(10, seed=i), 4) for i in range(1000)]
        with _health_probe(url) as waits:
            results = benchmark.pedantic(lambda: run_all(url, bodies), rounds=1, iterations=1)
    answered = sum(result.error is None and bool(result.arrivals) for result in results)
    p99 = 1000 * statistics.quantiles(waits, n=100)[98]
    record_figures("1,000 requests at once", {"answered": answered, "/health p99, ms": p99})


@contextmanager
def _health_probe(url: str) -> Iterator[list[float]]:
    waits: list[float] = []
    done = threading.Event()

    def ask() -> None:
        with httpx.Client() as client:
            while not done.wait(0.1):
                started = time.perf_counter()
                client.get(f"{url}/health").raise_for_status()
                waits.append(time.perf_counter() - started)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield waits
    finally:
        done.set()
        thread.join()


def _pressing() -> list[dict[str, Any]]:
    return [_body(_text(50, seed=i), 200) for i in range(16)]


def _body(prompt: str, max_tokens: int) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
    }


def _text(tokens: int, seed: int) -> str:
    # A linear congruential walk over the words: the same seed, the same text.
    words: list[str] = []
    state = seed * 2654435761 % 2**32
    for _ in range(tokens):
        state = (1664525 * state + 1013904223) % 2**32
        words.append(_WORDS[state >> 28])
    return "".join(f" {word}" for word in words)


def _gaps(results: list[StreamResult]) -> list[float]:
    return [b - a for r in results for a, b in zip(r.arrivals, r.arrivals[1:], strict=False)]


def _checked(results: list[StreamResult]) -> list[StreamResult]:
    failed = [result.error for result in results if result.error is not None or not result.arrivals]
    assert not failed, failed[0]
    return results
