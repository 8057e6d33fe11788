"""Tokenizing and back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avllm.errors import InvalidRequestError
from avllm.llama import Vocab


def test_text_becomes_the_known_token_ids(vocab: Vocab) -> None:
    assert vocab.encode("The quick brown fox jumps") == [504, 2365, 6354, 16438, 27003]


def test_control_tokens_are_read_only_when_asked(vocab: Vocab) -> None:
    assert vocab.encode("<|im_start|>", parse_special=True) == [1]
    assert 1 not in vocab.encode("<|im_start|>", parse_special=False)


# This vocabulary has no tokens for control characters, nor for the byte F1 (from U+40000 on).
_CHARACTERS = st.characters(max_codepoint=0x3FFFF, categories=["L", "M", "N", "P", "S", "Zs"])


@given(st.text(_CHARACTERS, max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_text_comes_back_unchanged(vocab: Vocab, text: str) -> None:
    assert vocab.decode(vocab.encode(text)) == text


def test_lone_surrogates_are_refused(vocab: Vocab) -> None:
    with pytest.raises(InvalidRequestError, match="Unicode"):
        vocab.encode("\ud83d")


def test_nul_bytes_do_not_cut_the_text(vocab: Vocab) -> None:
    assert vocab.decode(vocab.encode("a\x00b")) == "a\x00b"


def test_a_megabyte_is_tokenized(vocab: Vocab) -> None:
    text = "all work and no play " * 50_000
    assert vocab.decode(vocab.encode(text)) == text


@pytest.mark.parametrize("token", [-1, 49152, 2**31 - 1])
def test_ids_outside_the_vocabulary_are_refused(vocab: Vocab, token: int) -> None:
    with pytest.raises(InvalidRequestError, match="outside the vocabulary"):
        vocab.token_bytes(token)
    with pytest.raises(InvalidRequestError, match="outside the vocabulary"):
        vocab.is_control(token)


def test_end_tokens_are_known(vocab: Vocab) -> None:
    assert vocab.eog_tokens == {0, 2, 4}
    assert vocab.is_eog(2)
    assert not vocab.is_eog(504)
    assert vocab.is_control(2)


def test_skip_special_leaves_control_tokens_out(vocab: Vocab) -> None:
    assert vocab.decode([1, 504, 2]) == "<|im_start|>The<|im_end|>"
    assert vocab.decode([1, 504, 2], skip_special=True) == "The"
