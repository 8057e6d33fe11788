"""Choosing a variant of a repository by file names."""

from __future__ import annotations

import pytest

from avllm.errors import ModelNotFoundError
from avllm.models.variant import choose_variant, list_variants

QWEN = [
    "README.md",
    "Qwen3-1.7B-BF16.gguf",
    "Qwen3-1.7B-F16.gguf",
    "Qwen3-1.7B-IQ4_0.gguf",
    "Qwen3-1.7B-Q4_0.gguf",
    "Qwen3-1.7B-Q4_K_M.gguf",
    "Qwen3-1.7B-Q8_0.gguf",
    "mmproj-Qwen3-F16.gguf",
]
SPLIT = [f"big-Q8_0-0000{part}-of-00003.gguf" for part in (3, 1, 2)]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (None, "Qwen3-1.7B-Q4_K_M.gguf"),
        ("q8_0", "Qwen3-1.7B-Q8_0.gguf"),
        ("Q4_0", "Qwen3-1.7B-Q4_0.gguf"),
        ("F16", "Qwen3-1.7B-F16.gguf"),
        ("qwen3-1.7b-bf16.gguf", "Qwen3-1.7B-BF16.gguf"),
    ],
)
def test_choose_one(wanted: str | None, expected: str) -> None:
    assert choose_variant("Qwen/x", QWEN, wanted).files == (expected,)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["x-Q8_0.gguf", "x-Q4_0.gguf"], "x-Q4_0.gguf"),
        (["x-F16.gguf", "x-Q8_0.gguf"], "x-Q8_0.gguf"),
        (["only-IQ1_S.gguf"], "only-IQ1_S.gguf"),
        (["Phi-3-fp16.gguf", "Phi-3-q4.gguf", "Q4_K_M/Phi-3.gguf"], "Q4_K_M/Phi-3.gguf"),
    ],
)
def test_preference_without_a_wish(files: list[str], expected: str) -> None:
    assert choose_variant("o/r", files, None).files == (expected,)


def test_short_quantisation_of_the_registry() -> None:
    files = ["Phi-3-mini-4k-instruct-fp16.gguf", "Phi-3-mini-4k-instruct-q4.gguf"]
    assert choose_variant("o/r", files, "q4").files == (files[1],)


def test_q4_k_does_not_mean_q4_k_m() -> None:
    with pytest.raises(ModelNotFoundError, match=r"nothing in o/r is called Q4_K\b.*Q4_K_M"):
        choose_variant("o/r", QWEN, "Q4_K")


def test_ambiguous_wish_lists_the_choices() -> None:
    files = ["a-Q4_0.gguf", "b-Q4_0.gguf", "c-Q8_0.gguf"]
    with pytest.raises(ModelNotFoundError, match=r"more than one.*a-Q4_0, b-Q4_0\.$"):
        choose_variant("o/r", files, "Q4_0")
    with pytest.raises(ModelNotFoundError, match="more than one"):
        choose_variant("o/r", files, None)


def test_split_files_belong_together_in_order() -> None:
    chosen = choose_variant("o/r", [*SPLIT, "big-Q4_0.gguf"], "Q8_0")
    assert chosen.name == "big-Q8_0"
    assert chosen.files == tuple(sorted(SPLIT))
    assert choose_variant("o/r", SPLIT, SPLIT[1]).files == tuple(sorted(SPLIT))


def test_incomplete_split_and_projectors_are_no_models() -> None:
    assert list_variants([*SPLIT[:2], "mmproj-f16.gguf", "x-imatrix.gguf", "x.txt"]) == []


def test_repository_without_gguf() -> None:
    with pytest.raises(ModelNotFoundError, match="holds no GGUF"):
        choose_variant("o/r", ["model.safetensors"], None)
