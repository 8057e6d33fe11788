"""`avllm serve` as a real process on the real default model."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
from conftest import free_port, wait_until_healthy

BODY = {"prompt": "The quick brown fox jumps", "max_tokens": 4, "temperature": 0}


def test_the_fox_jumps_over_a_lazy_dog(server_url: str) -> None:
    answer = httpx.post(f"{server_url}/v1/completions", json=BODY, timeout=60).json()
    assert answer["choices"][0]["text"] == " over a lazy dog"
    assert answer["usage"]["prompt_tokens"] == 5


def test_thirty_two_streams_are_computed_together(server_url: str) -> None:
    before = _metrics(server_url)

    async def one(client: httpx.AsyncClient, number: int) -> int:
        body = {
            "prompt": f"{number}. Once upon a time",
            "max_tokens": 32,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
        }
        async with client.stream("POST", f"{server_url}/v1/completions", json=body) as answer:
            assert answer.status_code == 200
            lines = [line async for line in answer.aiter_lines() if line]
        assert lines[-1] == "data: [DONE]"
        return len(lines)

    async def main() -> list[int]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(timeout=120, limits=limits) as client:
            return await asyncio.gather(*(one(client, number) for number in range(32)))

    assert min(asyncio.run(main())) > 30
    after = _metrics(server_url)
    tokens = after["avllm_generation_tokens_total"] - before["avllm_generation_tokens_total"]
    steps = after["avllm_decode_steps_total"] - before["avllm_decode_steps_total"]
    assert tokens == 32 * 32
    assert steps < tokens / 8


def test_a_client_that_goes_away_frees_its_sequence(server_url: str) -> None:
    body = {**BODY, "max_tokens": 4000, "ignore_eos": True, "stream": True}
    with httpx.stream("POST", f"{server_url}/v1/completions", json=body, timeout=60) as answer:
        next(answer.iter_lines())
        steps = _metrics(server_url)["avllm_steps_total"]
    for _ in range(200):
        metrics = _metrics(server_url)
        if metrics["avllm_running"] == 0:
            break
        time.sleep(0.05)
    assert metrics["avllm_running"] == 0
    assert metrics["avllm_kv_cells_used"] == 0
    assert metrics["avllm_steps_total"] - steps < 100


def test_sigterm_lets_a_running_stream_end_and_exits_with_zero(model_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "avllm", "serve", str(model_path), "--port", str(port)]
    with subprocess.Popen(command) as process:
        wait_until_healthy(url, process)
        body = {**BODY, "max_tokens": 60, "ignore_eos": True, "stream": True}
        with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=60) as answer:
            lines = answer.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert process.wait(60) == 0


def test_a_second_server_on_the_same_port_is_refused_in_words(server_url: str) -> None:
    port = server_url.rpartition(":")[2]
    done = subprocess.run(
        [sys.executable, "-m", "avllm", "serve", "--port", port],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert port in done.stderr
    assert "Traceback" not in done.stderr


def _metrics(url: str) -> dict[str, float]:
    text = httpx.get(f"{url}/metrics", timeout=30).text
    return {name: float(value) for name, value in re.findall(r"^(\w+) (\S+)$", text, re.MULTILINE)}
