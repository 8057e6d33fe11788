"""Models whose memory is not a plain KV cache: batching and sharing must not change a token."""

from __future__ import annotations

from array import array
from pathlib import Path

import pytest
from tiny_models import WRITERS

from avllm import Engine, EngineConfig, SamplingParams
from avllm.llama import Batch, Context, Model, Sampler, sample_rows

GREEDY = SamplingParams(max_tokens=16, temperature=0, ignore_eos=True)
CONFIG = EngineConfig(
    max_num_seqs=4, context_length=1024, max_num_batched_tokens=64, kv_cache_type="f32"
)


@pytest.fixture(scope="module", params=sorted(WRITERS))
def tiny_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    WRITERS[request.param](path)
    return path


def test_requests_in_one_batch_get_the_tokens_they_get_alone(tiny_model: Path) -> None:
    prompts = [_prompt(length, seed=length) for length in (3, 150, 40, 90, 151, 7)]
    alone = [_reference(tiny_model, prompt) for prompt in prompts]
    with Engine(tiny_model, CONFIG) as engine:
        together = [list(out.outputs[0].token_ids) for out in engine.generate(prompts, GREEDY)]
    assert together == alone


def test_a_common_beginning_changes_nothing(tiny_model: Path) -> None:
    common = _prompt(120, seed=1)
    prompts = [common + _prompt(5, seed=seed) for seed in range(2, 6)]
    alone = [_reference(tiny_model, prompt) for prompt in prompts]
    with Engine(tiny_model, CONFIG) as engine:
        first = engine.generate(prompts, GREEDY)
        second = engine.generate(prompts, GREEDY)
    for outputs in (first, second):
        assert [list(out.outputs[0].token_ids) for out in outputs] == alone


def test_only_memory_that_can_be_cut_is_shared(tiny_model: Path) -> None:
    prompt = _prompt(100, seed=3)
    with Engine(tiny_model, CONFIG) as engine:
        engine.generate(prompt, GREEDY)
        cached = engine.generate(prompt, GREEDY).usage.cached_tokens
    assert cached == (99 if Model(str(tiny_model)).can_cut_memory else 0)


def test_too_little_room_for_all_changes_nothing(tiny_model: Path) -> None:
    prompts = [_prompt(100, seed=seed) for seed in range(6)]
    params = SamplingParams(max_tokens=60, temperature=0, ignore_eos=True)
    alone = [_reference(tiny_model, prompt, 60) for prompt in prompts]
    config = EngineConfig(
        max_num_seqs=4, context_length=256, max_num_batched_tokens=64, kv_cache_type="f32"
    )
    with Engine(tiny_model, config) as engine:
        outputs = engine.generate(prompts, params)
        snapshot = engine.metrics.snapshot()
    assert [list(out.outputs[0].token_ids) for out in outputs] == alone
    assert snapshot.preemptions > 0


def _reference(path: Path, prompt: list[int], count: int = 16) -> list[int]:
    # One sequence in a context of its own: no batching, no sharing, no scheduler.
    model = Model(str(path))
    context = Context(model, n_ctx=512, n_batch=256, n_seq_max=1, num_threads=1, cell_type="f32")
    sampler = Sampler(SamplingParams(temperature=0), context.n_vocab)
    batch = Batch(256)
    row = batch.extend(array("i", prompt), 0, len(prompt), 0, True)
    tokens: list[int] = []
    for position in range(len(prompt), len(prompt) + count):
        context.decode(batch)
        tokens += sample_rows(context, [sampler], [row], 1)
        batch.clear()
        row = batch.add(tokens[-1], position, 0, True)
    return tokens


def _prompt(length: int, seed: int) -> list[int]:
    return [(seed * 7919 + i * 104729) % 50000 for i in range(length)]
