"""Compare llama-batched-bench: stock on separate caches and on one pool, our kernel on one.

Interleaved rounds, medians.

Usage: compare.py MODEL.gguf [--bin build/peers/bin] [--rounds 5] [--case 16x780 ...]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
from pathlib import Path

CASES = ["1x150", "1x770", "1x2000", "32x140", "16x780"]
# glibc's own way to huge pages: tells the kernel's share from theirs, which avllm asks for itself.
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
VARIANTS: dict[str, tuple[str, list[str], dict[str, str]]] = {
    "stock separate": ("llama-batched-bench", [], {}),
    "stock separate, huge pages": ("llama-batched-bench", [], HUGE_PAGES),
    "stock pool": ("llama-batched-bench", ["--kv-unified"], {}),
    "avllm pool": ("avllm-batched-bench", ["--kv-unified"], {}),
}
NEW_TOKENS = 16


def measure(options: argparse.Namespace, variant: str, case: str) -> dict[str, float]:
    """Run one variant on `sequences x prompt length`; return tokens per second by phase."""
    sequences, prompt = map(int, case.split("x"))
    tool, extra, environment = VARIANTS[variant]
    new_tokens = NEW_TOKENS if sequences > 1 else 4 * NEW_TOKENS
    per_sequence = (prompt + new_tokens + 255) // 256 * 256
    command = [
        *(str(options.bin / tool), "--model", str(options.model), "--output-format", "jsonl"),
        *("--ctx-size", str(sequences * per_sequence), "--flash-attn", "on"),
        *("--threads", str(options.threads), "--threads-batch", str(options.threads)),
        *("--batch-size", "2048", "--ubatch-size", "512"),
        *("-npp", str(prompt), "-ntg", str(new_tokens), "-npl", str(sequences)),
        *extra,
    ]
    run = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, **environment}
    )
    result = json.loads(next(line for line in run.stdout.splitlines() if line.startswith("{")))
    return {"prefill": result["speed_pp"], "decode": result["speed_tg"]}


def report(case: str, rounds: list[dict[str, dict[str, float]]]) -> None:
    """Print medians, and the median of the rounds' ratios to the first variant."""
    base = next(iter(VARIANTS))
    for phase in ("prefill", "decode"):
        cells = []
        for variant in VARIANTS:
            speed = statistics.median(r[variant][phase] for r in rounds)
            ratio = statistics.median(r[variant][phase] / r[base][phase] for r in rounds)
            cells.append(f"{variant} {speed:7.1f} tok/s ({ratio:.2f})")
        print(f"{case:>9} {phase:<8} {len(rounds)} rounds   " + "   ".join(cells), flush=True)


def main() -> None:
    """Measure every case in rounds: each variant once, in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--bin", type=Path, default=Path("build/peers/bin"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--case", nargs="+", default=CASES)
    options = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.1f}, {options.threads} threads, {options.model.name}")
    for case in options.case:
        rounds = range(options.rounds)
        report(case, [{v: measure(options, v, case) for v in VARIANTS} for _ in rounds])
    print(f"load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
