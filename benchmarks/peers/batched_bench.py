"""llama-batched-bench: llama.cpp's own measure of batched decoding, without server or sampling."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path


def decode_speed(
    tool: Path,
    model: Path,
    *,
    sequences: int,
    prompt: int,
    generate: int,
    threads: int,
    unified: bool,
) -> dict[str, float]:
    """Run it once.

    Returns:
        Tokens per second: ``decode`` over all sequences, ``prefill`` of the prompts.
    """
    cells = sequences * (prompt + generate) + 256
    command = [str(tool), "-m", str(model), "-c", str(cells), "-b", "512", "-ub", "512"]
    command += ["-npp", str(prompt), "-ntg", str(generate), "-npl", str(sequences)]
    command += ["-t", str(threads), "-tb", str(threads), "-fa", "on", "--output-format", "jsonl"]
    command += ["--kv-unified" if unified else "--no-kv-unified"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=900)
    line = next(line for line in done.stdout.splitlines() if line.startswith("{"))
    figures = json.loads(line)
    return {"decode": figures["speed_tg"], "prefill": figures["speed_pp"]}
