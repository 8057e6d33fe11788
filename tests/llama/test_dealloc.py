"""Every owner of a C pointer frees it: memory stays flat over many rounds."""

from __future__ import annotations

import ctypes
import gc
import os
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest

from avllm.llama import Batch, ChatTemplate, Context, Model, Sampler, Vocab
from avllm.sampling_params import SamplingParams

PAGE = os.sysconf("SC_PAGE_SIZE")


def test_models_are_freed(model_path: Path) -> None:
    _stays_flat(lambda: Vocab(Model(str(model_path))), rounds=6, slack_mib=20)


def test_models_that_fail_to_load_are_freed(model_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "cut.gguf"
    file.write_bytes(model_path.read_bytes()[:30_000_000])

    def load() -> None:
        with pytest.raises(OSError, match="incomplete"):
            Model(str(file))

    _stays_flat(load, rounds=20, slack_mib=10)


def test_contexts_with_their_threads_are_freed(model: Model) -> None:
    def make() -> None:
        context = Context(model, n_ctx=512, n_batch=64, n_seq_max=2, num_threads=2)
        context.attach_threadpool()
        batch = Batch(64)
        batch.extend(array("i", [504, 2365]), 0, 2, 0, True)
        context.decode(batch)

    _stays_flat(make, rounds=15, slack_mib=10)
    assert len(os.listdir("/proc/self/task")) < 20


def test_batches_are_freed() -> None:
    _stays_flat(lambda: Batch(100_000), rounds=200, slack_mib=10)


def test_samplers_are_freed() -> None:
    params = SamplingParams(logit_bias=dict.fromkeys(range(1000), 1.0))
    _stays_flat(lambda: Sampler(params, 49152), rounds=5000, slack_mib=5)


def test_chat_templates_are_freed(model: Model) -> None:
    def render() -> None:
        ChatTemplate(model).render([{"role": "user", "content": "x" * 10_000}])

    _stays_flat(render, rounds=40, slack_mib=10)


def test_saved_states_are_freed(context: Context) -> None:
    batch = Batch(256)
    batch.extend(array("i", [504] * 256), 0, 256, 0, True)
    context.decode(batch)
    _stays_flat(lambda: context.restore_sequence(1, context.save_sequence(0)), 100, slack_mib=10)


def _stays_flat(work: Callable[[], object], rounds: int, slack_mib: int) -> None:
    for _ in range(max(2, rounds // 10)):  # caches and arenas fill up first
        work()
    before = _resident()
    for _ in range(rounds):
        work()
    assert _resident() - before < slack_mib * 2**20


def _resident() -> int:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
