"""Variant: one quantisation of a model among the files of a repository.

Chooses by name alone, so the same rules serve a listing from the network and the files in the
store.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from avllm.errors import ModelNotFoundError

# What to take when only owner/repo is given: the usual balance of size and quality first, then
# the formats that llama.cpp computes fast, then whatever is small enough to be wanted.
PREFERRED_QUANTISATIONS = (
    "Q4_K_M", "Q4_0", "Q8_0", "Q4_1", "Q5_K_M", "Q4_K_S", "Q6_K", "Q5_0", "F16", "BF16",
)  # fmt: skip
# Written by llama-gguf-split: <stem>-00001-of-00003.gguf.
_SPLIT = re.compile(r"^(?P<stem>.+)-(?P<part>\d{5})-of-(?P<parts>\d{5})$")
# GGUF files that are no models: vision projectors and the statistics used for quantising.
_NO_MODEL = re.compile(r"(^|/)(mmproj|imatrix)|[-._](mmproj|imatrix)", re.IGNORECASE)


class Variant(msgspec.Struct, frozen=True):
    """One quantisation of a model.

    Attributes:
        name: path without the split suffix and ``.gguf``.
        files: its file, or all files of a split model in order; the first is the one to load.
    """

    name: str
    files: tuple[str, ...]


def list_variants(files: Iterable[str]) -> list[Variant]:
    """Group the GGUF models among `files`; incomplete sets of split files are left out."""
    groups: dict[str, list[str]] = {}
    expected: dict[str, int] = {}
    for file in sorted(files):
        if not file.lower().endswith(".gguf") or _NO_MODEL.search(file):
            continue
        stem = file[: -len(".gguf")]
        split = _SPLIT.match(stem)
        name = split["stem"] if split else stem
        expected[name] = int(split["parts"]) if split else 1
        groups.setdefault(name, []).append(file)
    return [Variant(n, tuple(g)) for n, g in groups.items() if len(g) == expected[n]]


def choose_variant(model: str, files: Iterable[str], wanted: str | None) -> Variant:
    """Choose the variant of `model` that `wanted` names.

    Args:
        model: what to call the model in an error, as the user knows it.
        files: names of the files to choose from.
        wanted: quantisation or file name in any case, or None for the preferred quantisation.

    Raises:
        ModelNotFoundError: nothing matches, or more than one does; lists the choices.
    """
    variants = list_variants(files)
    if not variants:
        raise ModelNotFoundError(
            f"{model} holds no GGUF model. Look for a repository whose name ends in -GGUF."
        )
    if wanted is None:
        found = variants if len(variants) == 1 else _preferred(variants)
    else:
        found = _named(variants, wanted) or _of_quantisation(variants, wanted)
    if len(found) == 1:
        return found[0]
    problem = "more than one file of" if found else "nothing in"
    what = f"is called {wanted}" if wanted else "has a preferred quantisation"
    choices = ", ".join(variant.name for variant in found or variants)
    raise ModelNotFoundError(
        f"{problem} {model} {what}. Name one as {model}:NAME, with NAME out of: {choices}."
    )


def is_variant(file: str, wanted: str) -> bool:
    """Tell whether `wanted`, a quantisation or a file name, names the model in `file`."""
    variants = list_variants([file])
    return bool(_named(variants, wanted) or _of_quantisation(variants, wanted))


def _named(variants: list[Variant], wanted: str) -> list[Variant]:
    name = wanted.lower().removesuffix(".gguf")
    name = split["stem"] if (split := _SPLIT.match(name)) else name
    return [v for v in variants if name in (v.name.lower(), v.name.lower().rpartition("/")[2])]


def _of_quantisation(variants: list[Variant], wanted: str) -> list[Variant]:
    # Q4_K must not find Q4_K_M, nor Q4_0 find IQ4_0, nor F16 find BF16.
    pattern = re.compile(rf"(?<![A-Z0-9]){re.escape(wanted)}(?![A-Z0-9_])", re.IGNORECASE)
    return [variant for variant in variants if pattern.search(variant.name)]


def _preferred(variants: list[Variant]) -> list[Variant]:
    for quantisation in PREFERRED_QUANTISATIONS:
        if found := _of_quantisation(variants, quantisation):
            return found
    return []
