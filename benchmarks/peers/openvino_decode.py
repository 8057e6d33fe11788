"""Decode speed of OpenVINO GenAI's ContinuousBatchingPipeline on a GGUF file.

Run it with an interpreter that has openvino-genai, e.g. one of a virtual environment of its own;
`bench_contexts.py` does so when told which (--openvino-python).
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import openvino
import openvino_genai as genai


def main() -> None:
    """Print one JSON object: tokens per second while every sequence decodes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    for name in ("sequences", "prompt", "generate", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    scheduler = genai.SchedulerConfig()
    scheduler.cache_size = 4
    scheduler.max_num_batched_tokens = 512
    scheduler.max_num_seqs = options.sequences
    properties = {"INFERENCE_NUM_THREADS": options.threads}
    pipeline = genai.ContinuousBatchingPipeline(options.model, scheduler, "CPU", properties)
    config = genai.GenerationConfig()
    config.max_new_tokens = options.generate
    config.do_sample = False
    config.ignore_eos = True
    random = np.random.default_rng(1)
    handles = []
    for number in range(options.sequences):
        ids = random.integers(100, 40_000, (1, options.prompt), dtype=np.int64)
        handles.append(pipeline.add_request(number, openvino.Tensor(ids), config))
    print(json.dumps({"decode": _decode_speed(pipeline, options.sequences, options.generate)}))


def _decode_speed(
    pipeline: genai.ContinuousBatchingPipeline, sequences: int, generate: int
) -> float:
    # Prompts are computed in the first steps; the last ones decode one token of every sequence.
    ends = []
    while pipeline.has_non_finished_requests():
        pipeline.step()
        ends.append(time.perf_counter())
    last = min(len(ends) - 1, generate // 2)
    return sequences * last / (ends[-1] - ends[-1 - last])


if __name__ == "__main__":
    main()
