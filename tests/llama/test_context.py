"""Steps on the real model: sharing, saving, limits, abort."""

from __future__ import annotations

import threading
from array import array

import numpy as np
import pytest

from avllm.llama import Batch, Context, DecodeStatus, Model, Sampler, Vocab, sample_rows
from avllm.sampling_params import SamplingParams

PROMPT = "The quick brown fox jumps"


def test_greedy_continuation_is_the_known_one(context: Context, vocab: Vocab) -> None:
    assert vocab.decode(_greedy(context, vocab.encode(PROMPT), 0, 4)) == " over a lazy dog"


def test_shared_prefix_gives_the_logits_of_a_computed_one(context: Context, vocab: Vocab) -> None:
    tokens = array("i", vocab.encode(PROMPT + " over the lazy dog and then"))
    alone = _logits(context, tokens, 0, 0)
    _logits(context, tokens[:6], 0, 1)
    context.seq_cp(1, 2, 0, 6)
    shared = _logits(context, tokens, 6, 2)
    np.testing.assert_allclose(shared, alone, atol=0.05)
    assert shared.argmax() == alone.argmax()


def test_saved_sequence_continues_exactly(context: Context, vocab: Vocab) -> None:
    tokens = array("i", vocab.encode(PROMPT))
    _logits(context, tokens, 0, 0)
    state = context.save_sequence(0)
    context.seq_rm(0)
    assert context.seq_pos_max(0) == -1
    assert context.restore_sequence(3, state)
    assert context.seq_pos_max(3) == len(tokens) - 1
    again = context.save_sequence(3)
    assert context.restore_sequence(0, again)
    assert context.save_sequence(0) == state


def test_suffix_saved_apart_from_its_shared_prefix_is_restored(
    context: Context, vocab: Vocab
) -> None:
    tokens = array("i", vocab.encode(PROMPT + " over the lazy dog"))
    follow_up = array("i", [*tokens, *vocab.encode(" again")])
    _logits(context, tokens, 0, 0)
    context.seq_cp(0, 4, 5, -1)  # the scratch id takes what is to be parked
    state = context.save_sequence(4)
    context.seq_rm(4)
    expected = _logits(context, follow_up, len(tokens), 0)
    context.seq_rm(0, 5, -1)
    assert context.restore_sequence(2, state)
    context.seq_cp(0, 2, 0, 5)
    np.testing.assert_array_equal(_logits(context, follow_up, len(tokens), 2), expected)


def test_cells_are_counted_by_llama_cpp_as_by_us(context: Context, vocab: Vocab) -> None:
    # 1,024 cells: four sequences of 256 tokens fill them, one more token finds no slot.
    tokens = array("i", vocab.encode("word " * 400)[:256])
    batch = Batch(256)
    for seq_id in range(4):
        batch.clear()
        batch.extend(tokens, 0, 256, seq_id, False)
        assert context.decode(batch) is DecodeStatus.OK
    batch.clear()
    batch.add(tokens[0], 0, 4, True)
    assert context.decode(batch) is DecodeStatus.NO_KV_SLOT
    context.seq_rm(2, 255, -1)
    assert context.decode(batch) is DecodeStatus.OK


def test_sequence_ids_beyond_the_batch_limit_hold_cells(context: Context, vocab: Vocab) -> None:
    tokens = array("i", vocab.encode(PROMPT))
    _logits(context, tokens, 0, 0)
    context.seq_cp(0, 255)
    context.seq_rm(0)
    assert context.seq_pos_max(255) == len(tokens) - 1
    context.seq_cp(255, 1, 0, 3)
    assert context.seq_pos_max(1) == 2


def test_what_llama_cpp_would_abort_on_is_refused(context: Context, model: Model) -> None:
    batch = Batch(512)
    with pytest.raises(ValueError, match="1 to 256 rows"):
        context.decode(batch)
    batch.extend(array("i", [504] * 300), 0, 300, 0, False)
    with pytest.raises(ValueError, match="1 to 256 rows"):
        context.decode(batch)
    for token, position, seq_id in [(-1, 0, 0), (49152, 0, 0), (1, -1, 0), (1, 0, 5), (1, 0, -1)]:
        batch.clear()
        batch.add(token, position, seq_id, True)
        with pytest.raises(ValueError, match="row 0"):
            context.decode(batch)
    batch.clear()
    for row in range(6):
        batch.add(504, row, 0, True)
    with pytest.raises(ValueError, match="at most 5 rows"):
        context.decode(batch)
    for call in (context.seq_rm, context.seq_pos_max, context.seq_pos_min):
        with pytest.raises(ValueError, match="seq_id"):
            call(256)
    with pytest.raises(ValueError, match="seq_id"):
        context.save_sequence(5)
    with pytest.raises(ValueError, match="n_seq_max"):
        Context(model, n_ctx=512, n_batch=64, n_seq_max=257, num_threads=1)
    with pytest.raises(ValueError, match="n_batch"):
        Context(model, n_ctx=512, n_batch=2, n_seq_max=4, num_threads=1)


def test_full_batch_is_refused(vocab: Vocab) -> None:
    batch = Batch(2)
    batch.add(1, 0, 0, False)
    batch.add(1, 1, 0, False)
    with pytest.raises(IndexError, match="at most 2"):
        batch.add(1, 2, 0, False)
    with pytest.raises(IndexError):
        batch.extend(array("i", [1, 2]), 1, 5, 0, False)


def test_rows_without_logits_are_refused(context: Context, vocab: Vocab) -> None:
    tokens = array("i", vocab.encode(PROMPT))
    _logits(context, tokens, 0, 0)
    with pytest.raises(IndexError, match="no logits"):
        context.logits_array(0)
    with pytest.raises(IndexError, match="not in the last step"):
        context.logits_array(99)


def test_abort_ends_a_running_step(context: Context, vocab: Vocab) -> None:
    batch = Batch(256)
    batch.extend(array("i", vocab.encode("word " * 400)[:256]), 0, 256, 0, False)
    threading.Timer(0.05, context.request_abort).start()
    assert context.decode(batch) is DecodeStatus.ABORTED
    context.clear_abort()
    context.seq_rm(0)
    assert context.decode(batch) is DecodeStatus.OK


def test_steps_of_a_vocab_only_model_are_refused(model_path: object) -> None:
    with pytest.raises(ValueError, match="no weights"):
        Context(
            Model(str(model_path), vocab_only=True),
            n_ctx=256,
            n_batch=64,
            n_seq_max=1,
            num_threads=1,
        )


def _logits(context: Context, tokens: array[int], start: int, seq_id: int) -> np.ndarray:
    batch = Batch(256)
    row = batch.extend(tokens, start, len(tokens) - start, seq_id, True)
    assert context.decode(batch) is DecodeStatus.OK
    return context.logits_array(row)


def _greedy(context: Context, prompt: list[int], seq_id: int, count: int) -> list[int]:
    sampler = Sampler(SamplingParams(temperature=0), context.n_vocab)
    batch = Batch(256)
    row = batch.extend(array("i", prompt), 0, len(prompt), seq_id, True)
    tokens: list[int] = []
    for position in range(len(prompt), len(prompt) + count):
        assert context.decode(batch) is DecodeStatus.OK
        tokens += sample_rows(context, [sampler], [row], 2)
        batch.clear()
        row = batch.add(tokens[-1], position, seq_id, True)
    return tokens
