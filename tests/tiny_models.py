"""Tiny GGUF models with random weights, one for each kind of memory that llama.cpp has.

The vocabulary is GPT-2's, from the llama.cpp tree that the build uses. Weights are F32 and large
enough that the likeliest token stands clear of rounding differences between batch shapes.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
from gguf import GGUFReader, GGUFValueType, GGUFWriter

_EMBD, _FF, _HEADS, _HEAD_SIZE, _LAYERS = 128, 256, 2, 64, 4
_CONTEXT = 2048


def vocabulary(name: str = "gpt-2") -> Path:
    """Return a vocabulary file of the llama.cpp tree."""
    script = Path(__file__).parent.parent / "third_party" / "fetch.py"
    spec = importlib.util.spec_from_file_location("fetch", script)
    assert spec is not None
    assert spec.loader is not None
    fetch = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fetch)
    path: Path = fetch.locate() / "models" / f"ggml-vocab-{name}.gguf"
    return path


def write_recurrent(path: Path) -> None:
    """Mamba: one state per sequence, which cannot be cut."""
    model = _Model(path, "mamba", layers=2)
    inner, state, rank = 2 * _EMBD, 16, 8
    for key, value in (
        ("conv_kernel", 4),
        ("inner_size", inner),
        ("state_size", state),
        ("time_step_rank", rank),
    ):
        model.writer.add_uint32(f"mamba.ssm.{key}", value)
    model.add("token_embd.weight", _EMBD, model.vocab_size)
    model.ones("output_norm.weight", _EMBD)
    for i in range(2):
        model.ones(f"blk.{i}.attn_norm.weight", _EMBD)
        model.add(f"blk.{i}.ssm_in.weight", _EMBD, 2 * inner)
        model.add(f"blk.{i}.ssm_conv1d.weight", 4, inner)
        model.add(f"blk.{i}.ssm_conv1d.bias", inner)
        model.add(f"blk.{i}.ssm_x.weight", inner, rank + 2 * state)
        model.add(f"blk.{i}.ssm_dt.weight", rank, inner)
        model.add(f"blk.{i}.ssm_dt.bias", inner)
        decay = -np.tile(np.arange(1, state + 1, dtype=np.float32), (inner, 1))
        model.writer.add_tensor(f"blk.{i}.ssm_a", decay)
        model.ones(f"blk.{i}.ssm_d", inner)
        model.add(f"blk.{i}.ssm_out.weight", inner, _EMBD)
    model.close()


def write_hybrid(path: Path) -> None:
    """LFM2: short convolutions with a state, and attention layers in between."""
    model = _Model(path, "lfm2", layers=_LAYERS)
    is_attention = [i % 2 == 1 for i in range(_LAYERS)]
    model.writer.add_uint32("lfm2.shortconv.l_cache", 3)
    model.writer.add_uint32("lfm2.feed_forward_length", _FF)
    model.writer.add_uint32("lfm2.attention.head_count", _HEADS)
    model.writer.add_array(
        "lfm2.attention.head_count_kv", [_HEADS if attention else 0 for attention in is_attention]
    )
    model.writer.add_float32("lfm2.rope.freq_base", 10_000.0)
    model.add("token_embd.weight", _EMBD, model.vocab_size)
    model.ones("token_embd_norm.weight", _EMBD)
    for i, attention in enumerate(is_attention):
        model.ones(f"blk.{i}.attn_norm.weight", _EMBD)
        if attention:
            model.add_attention(i)
        else:
            model.add(f"blk.{i}.shortconv.conv.weight", 3, _EMBD)
            model.add(f"blk.{i}.shortconv.in_proj.weight", _EMBD, 3 * _EMBD)
            model.add(f"blk.{i}.shortconv.out_proj.weight", _EMBD, _EMBD)
        model.add_feed_forward(i)
    model.close()


def write_sliding_window(path: Path) -> None:
    """Gemma 3: most layers see the last 64 tokens only."""
    model = _Model(path, "gemma3", layers=7)
    model.writer.add_uint32("gemma3.feed_forward_length", _FF)
    model.writer.add_uint32("gemma3.attention.head_count", _HEADS)
    model.writer.add_uint32("gemma3.attention.head_count_kv", _HEADS)
    model.writer.add_uint32("gemma3.attention.key_length", _HEAD_SIZE)
    model.writer.add_uint32("gemma3.attention.value_length", _HEAD_SIZE)
    model.writer.add_uint32("gemma3.attention.sliding_window", 64)
    model.writer.add_float32("gemma3.rope.freq_base", 10_000.0)
    model.add("token_embd.weight", _EMBD, model.vocab_size)
    model.ones("output_norm.weight", _EMBD)
    for i in range(7):
        model.ones(f"blk.{i}.attn_norm.weight", _EMBD)
        model.add_attention(i)
        model.ones(f"blk.{i}.post_attention_norm.weight", _EMBD)
        model.add_feed_forward(i)
        model.ones(f"blk.{i}.post_ffw_norm.weight", _EMBD)
    model.close()


WRITERS: dict[str, Callable[[Path], None]] = {
    "recurrent": write_recurrent,
    "hybrid": write_hybrid,
    "sliding window": write_sliding_window,
}


class _Model:
    """A GGUF file in the making: the common keys and the vocabulary are in it already."""

    def __init__(self, path: Path, architecture: str, layers: int) -> None:
        self._random = np.random.default_rng(11)
        self.writer = GGUFWriter(path, architecture)
        self.writer.add_uint32(f"{architecture}.block_count", layers)
        self.writer.add_uint32(f"{architecture}.context_length", _CONTEXT)
        self.writer.add_uint32(f"{architecture}.embedding_length", _EMBD)
        self.writer.add_float32(f"{architecture}.attention.layer_norm_rms_epsilon", 1e-5)
        self.vocab_size = self._copy_vocabulary()

    def add(self, name: str, *shape: int) -> None:
        """Add random weights; the shape is in ggml's order, innermost first."""
        scale = 1.0 if name.startswith("token_embd") else 2.0 / np.sqrt(shape[0])
        values = self._random.normal(0, scale, tuple(reversed(shape)))
        self.writer.add_tensor(name, values.astype(np.float32))

    def ones(self, name: str, size: int) -> None:
        """Add the weights of a norm."""
        self.writer.add_tensor(name, np.ones(size, dtype=np.float32))

    def add_attention(self, layer: int) -> None:
        """Add an attention block with normed queries and keys."""
        width = _HEADS * _HEAD_SIZE
        for part in ("q", "k", "v"):
            self.add(f"blk.{layer}.attn_{part}.weight", _EMBD, width)
        self.add(f"blk.{layer}.attn_output.weight", width, _EMBD)
        self.ones(f"blk.{layer}.attn_q_norm.weight", _HEAD_SIZE)
        self.ones(f"blk.{layer}.attn_k_norm.weight", _HEAD_SIZE)

    def add_feed_forward(self, layer: int) -> None:
        """Add a gated feed-forward block."""
        self.ones(f"blk.{layer}.ffn_norm.weight", _EMBD)
        self.add(f"blk.{layer}.ffn_gate.weight", _EMBD, _FF)
        self.add(f"blk.{layer}.ffn_up.weight", _EMBD, _FF)
        self.add(f"blk.{layer}.ffn_down.weight", _FF, _EMBD)

    def close(self) -> None:
        """Write the file."""
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_tensors_to_file()
        self.writer.close()

    def _copy_vocabulary(self) -> int:
        reader = GGUFReader(vocabulary())
        for name, field in reader.fields.items():
            if name.startswith("tokenizer."):
                nested = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
                self.writer.add_key_value(name, field.contents(), field.types[0], nested)
        return len(reader.fields["tokenizer.ggml.tokens"].contents())
