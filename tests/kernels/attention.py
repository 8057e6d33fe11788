"""Attention problems for the tests: random ones, a run in the library, the reference in F64."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

GGML_TYPES = {"f32": 0, "f16": 1, "q8_0": 8}
Q8_BLOCK = np.dtype([("scale", "<f2"), ("quants", "i1", (32,))])


class Problem(ctypes.Structure):
    """struct avllm_attention_problem"""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("rows", "heads", "kv_heads", "cells", "streams")),
        *((name, ctypes.c_int32) for name in ("k_size", "v_size", "k_type", "v_type")),
        *((name, ctypes.c_int32) for name in ("mask_streams", "threads")),
        *((name, ctypes.c_float) for name in ("scale", "max_bias", "softcap")),
        *((name, ctypes.c_void_p) for name in ("q", "k", "v", "mask", "sinks", "out")),
    ]


class Counts(ctypes.Structure):
    """struct avllm_attention_counts"""

    _fields_ = [(name, ctypes.c_uint64) for name in ("ours", "stock", "rows", "tiles")]


@cache
def library() -> ctypes.CDLL:
    """Return the library that avllm ships, loaded; AVLLM_TEST_LIBRARY names another build of it."""
    path = os.environ.get("AVLLM_TEST_LIBRARY")
    if path is None:
        from avllm.llama import backend

        path = str(Path(backend.__file__).with_name("libavllm_llama.so"))
    lib = ctypes.CDLL(path)
    lib.avllm_attention_get_counts.restype = Counts
    lib.avllm_attention_name.restype = ctypes.c_char_p
    lib.avllm_attention_run.argtypes = [ctypes.POINTER(Problem)]
    return lib


def runnable_kernels() -> list[str]:
    """Return the names of our kernels that this build has and this processor can run."""
    before = library().avllm_attention_name()
    names = ["avx512", "avx2", "neon", "portable"]
    found = [name for name in names if library().avllm_attention_select(name.encode()) == 0]
    library().avllm_attention_select(before)
    return found


@contextmanager
def kernel(name: str) -> Iterator[None]:
    """Select a kernel for a while."""
    before = library().avllm_attention_name()
    assert library().avllm_attention_select(name.encode()) == 0, f"no {name} kernel here"
    try:
        yield
    finally:
        library().avllm_attention_select(before)


def counts() -> Counts:
    """Return how often each path ran so far."""
    result: Counts = library().avllm_attention_get_counts()
    return result


def stored(x: NDArray[Any], kind: str) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return x as the KV cache would store it, and the numbers that this stands for."""
    if kind == "f32":
        return x.astype(np.float32), x.astype(np.float32).astype(np.float64)
    if kind == "f16":
        return x.astype(np.float16), x.astype(np.float16).astype(np.float64)
    blocks = x.reshape(*x.shape[:-1], -1, 32)
    packed = np.zeros(blocks.shape[:-1], Q8_BLOCK)
    packed["scale"] = np.abs(blocks).max(-1) / 127
    scale = packed["scale"].astype(np.float64)[..., None]
    safe = np.where(scale == 0, 1, scale)
    packed["quants"] = np.clip(np.rint(blocks / safe), -127, 127)
    return packed, (packed["quants"] * scale).reshape(x.shape)


@dataclass
class Case:
    """One attention problem; arrays in the layout of attention_run.h."""

    q: NDArray[np.float32]
    k: NDArray[Any]
    v: NDArray[Any]
    mask: NDArray[np.float16] | None
    k_type: str = "f16"
    v_type: str = "f16"
    sinks: NDArray[np.float32] | None = None
    max_bias: float = 0.0
    softcap: float = 0.0
    threads: int = 2
    scale: float = field(init=False)

    def __post_init__(self) -> None:
        self.scale = 1 / float(np.sqrt(self.q.shape[-1]))
        self.k_stored, self.k_exact = stored(self.k, self.k_type)
        self.v_stored, self.v_exact = stored(self.v, self.v_type)

    def run(self) -> NDArray[np.float32]:
        """Compute with the selected kernel."""
        streams, rows, heads, k_size = self.q.shape
        _, cells, kv_heads, v_size = self.v.shape
        out = np.full((streams, rows, heads, v_size), np.nan, np.float32)
        arrays = [self.q, self.k_stored, self.v_stored, self.mask, self.sinks, out]
        problem = Problem(
            *(rows, heads, kv_heads, cells, streams, k_size, v_size),
            *(GGML_TYPES[self.k_type], GGML_TYPES[self.v_type]),
            *(1 if self.mask is None else self.mask.shape[0], self.threads),
            *(self.scale, self.max_bias, self.softcap),
            *(None if a is None else a.ctypes.data for a in arrays),
        )
        assert library().avllm_attention_run(ctypes.byref(problem)) == 0
        return out

    def reference(self) -> NDArray[np.float64]:
        """Compute in F64, from the numbers that the stored K and V stand for."""
        group = self.q.shape[2] // self.k.shape[2]
        k = np.repeat(self.k_exact, group, axis=2)
        v = np.repeat(self.v_exact, group, axis=2)
        scores = np.einsum("srhd,schd->shrc", self.q.astype(np.float64), k) * self.scale
        if self.softcap:
            scores = self.softcap * np.tanh(scores / self.softcap)
        if self.mask is not None:
            mask = np.resize(self.mask, (len(self.q), *self.mask.shape[1:])).astype(np.float64)
            scores = scores + self.slopes()[None, :, None, None] * mask[:, None]
        if self.sinks is not None:
            sinks = np.broadcast_to(self.sinks[None, :, None, None], (*scores.shape[:3], 1))
            scores = np.concatenate([scores, sinks.astype(np.float64)], axis=-1)
        top = scores.max(-1, keepdims=True)
        weights = np.exp(scores - np.where(np.isneginf(top), 0, top))
        total = weights.sum(-1, keepdims=True)
        weights /= np.where(total == 0, 1, total)
        return np.einsum("shrc,schd->srhd", weights[..., : v.shape[1]], v)

    def slopes(self) -> NDArray[np.float64]:
        """Return the ALiBi slopes of the heads."""
        heads = self.q.shape[2]
        if self.max_bias == 0:
            return np.ones(heads)
        power = 2 ** int(np.floor(np.log2(heads)))
        first = [2 ** (-self.max_bias / power * (h + 1)) for h in range(min(power, heads))]
        rest = [2 ** (-self.max_bias / 2 / power * (2 * h + 1)) for h in range(heads - power)]
        return np.array(first + rest)


def random_case(
    rng: np.random.Generator,
    *,
    rows: int,
    cells: int,
    kv_heads: int = 3,
    group: int = 3,
    streams: int = 1,
    size: int = 64,
    v_size: int | None = None,
    mask: NDArray[np.float16] | None = None,
    **options: Any,
) -> Case:
    """Return a problem with normal Q, K and V."""
    shape = (streams, cells, kv_heads)
    return Case(
        q=rng.normal(size=(streams, rows, kv_heads * group, size)).astype(np.float32),
        k=rng.normal(size=(*shape, size)),
        v=rng.normal(size=(*shape, v_size or size)),
        mask=mask,
        **options,
    )


def shared_pool(
    rng: np.random.Generator, lengths: list[int], rows: list[int], cells: int, window: int = 0
) -> NDArray[np.float16]:
    """Return the mask of sequences whose cells lie scattered in one pool.

    Sequence i has lengths[i] tokens and asks with its last rows[i]; a row sees its sequence's cells
    up to its own position, of those at most `window` (0: all).
    """
    places = rng.permutation(cells)
    mask = np.full((1, sum(rows), cells), -np.inf, np.float16)
    start = row = 0
    for length, n_rows in zip(lengths, rows, strict=True):
        own = places[start : start + length]
        for position in range(length - n_rows, length):
            first = max(0, position + 1 - window) if window else 0
            mask[0, row, own[first : position + 1]] = 0
            row += 1
        start += length
    return mask
