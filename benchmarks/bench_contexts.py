"""Decode speed over longer contexts, where attention takes the time, beside three peers."""

from __future__ import annotations

import json
import random
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from peers.batched_bench import decode_speed

from avllm import Engine, EngineConfig, SamplingParams
from avllm.config import default_threads

GENERATE = 32


@pytest.mark.parametrize("peer", ["batched-bench separate", "batched-bench unified", "openvino"])
@pytest.mark.parametrize(("sequences", "prompt"), [(32, 130), (16, 780), (1, 770)])
@pytest.mark.benchmark(group="decode over contexts")
def bench_contexts(
    peers: Path,
    model_file: Path,
    pytestconfig: pytest.Config,
    compare: Callable[..., None],
    sequences: int,
    prompt: int,
    peer: str,
) -> None:
    """Tokens per second over all sequences while all of them decode."""
    python = pytestconfig.getoption("--openvino-python")
    if peer == "openvino" and python is None:
        pytest.skip("needs --openvino-python: an interpreter with openvino-genai")

    def theirs() -> dict[str, float]:
        if peer == "openvino":
            return _openvino(python, model_file, sequences, prompt)
        return decode_speed(
            peers / "llama-batched-bench",
            model_file,
            sequences=sequences,
            prompt=prompt,
            generate=GENERATE,
            threads=default_threads(),
            unified=peer.endswith("unified"),
        )

    cells = sequences * (prompt + GENERATE) + 1024
    config = EngineConfig(
        context_length=cells, max_num_seqs=sequences, prefix_cache=False, itl_target_ms=5000
    )
    with Engine(model_file, config) as engine:
        title = f"decode {sequences} x {prompt}, peer {peer}"
        compare(title, lambda: {"decode": _ours(engine, sequences, prompt)}, theirs)


def _ours(engine: Engine, sequences: int, prompt: int) -> float:
    dice = random.Random(1)
    params = SamplingParams(max_tokens=GENERATE + 32, temperature=0, ignore_eos=True)
    arrivals: list[list[float]] = [[] for _ in range(sequences)]

    def follow(ids: list[int], times: list[float]) -> None:
        for delta in engine.stream(ids, params):
            times.extend([time.perf_counter()] * len(delta.token_ids))

    threads = [
        threading.Thread(target=follow, args=(dice.sample(range(100, 40_000), prompt), times))
        for times in arrivals
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    start = max(times[0] for times in arrivals)
    end = min(times[-1] for times in arrivals)
    return sum(start < at <= end for times in arrivals for at in times) / (end - start)


def _openvino(python: str, model: Path, sequences: int, prompt: int) -> dict[str, float]:
    script = Path(__file__).parent / "peers" / "openvino_decode.py"
    command = [python, str(script), str(model), "--threads", str(default_threads())]
    command += ["--sequences", str(sequences), "--prompt", str(prompt), "--generate", str(GENERATE)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=900)
    figures: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures
