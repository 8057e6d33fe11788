"""avllm beside another copy of ggml in one process, in both orders, also with global symbols.

The other copy is the one that pywhispercpp carries: another version with the same symbol names.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_OTHER = """
import ctypes, glob, os, importlib.util

def other_ggml():
    # RTLD_GLOBAL is the worst case: later loads prefer these symbols to their own.
    root = os.path.dirname(importlib.util.find_spec("_pywhispercpp").origin)
    folder = os.path.join(root, "pywhispercpp.libs")
    for name in ("libgomp-*", "libggml-base-*", "libggml-cpu-*", "libggml-[0-9a-f]*"):
        path, = [p for p in glob.glob(os.path.join(folder, name)) if "-base-" in name or
                 "-cpu-" in name or "gomp" in name or not ("-base-" in p or "-cpu-" in p)]
        library = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    return library

class InitParams(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]

def compute_with_other(library):
    # Two plus three, computed as a ggml graph by the other copy.
    g = ctypes.CDLL(None)  # the global scope
    for name in ("init", "new_tensor_1d", "set_f32", "add", "new_graph"):
        getattr(g, "ggml_" + name).restype = ctypes.c_void_p
    g.ggml_init.argtypes = [InitParams]
    context = g.ggml_init(InitParams(1 << 22, None, False))
    tensors = []
    for value in (2.0, 3.0):
        tensor = g.ggml_new_tensor_1d(ctypes.c_void_p(context), 0, ctypes.c_int64(1))
        g.ggml_set_f32(ctypes.c_void_p(tensor), ctypes.c_float(value))
        tensors.append(tensor)
    total = g.ggml_add(ctypes.c_void_p(context), *map(ctypes.c_void_p, tensors))
    graph = g.ggml_new_graph(ctypes.c_void_p(context))
    g.ggml_build_forward_expand(ctypes.c_void_p(graph), ctypes.c_void_p(total))
    g.ggml_graph_compute_with_ctx(ctypes.c_void_p(context), ctypes.c_void_p(graph), 1)
    g.ggml_get_f32_1d.restype = ctypes.c_float
    answer = g.ggml_get_f32_1d(ctypes.c_void_p(total), 0)
    g.ggml_free(ctypes.c_void_p(context))
    g.ggml_version.restype = ctypes.c_char_p
    print("other", g.ggml_version().decode(), answer)

def generate_with_avllm(path):
    from avllm import Engine, SamplingParams
    with Engine(path) as engine:
        output = engine.generate(
            "The quick brown fox jumps", SamplingParams(max_tokens=4, temperature=0)
        )
    print("avllm", output.text)
"""

_OTHER_FIRST = """
other = other_ggml()
compute_with_other(other)
generate_with_avllm(path)
compute_with_other(other)
"""

_AVLLM_FIRST = """
generate_with_avllm(path)
other = other_ggml()
compute_with_other(other)
generate_with_avllm(path)
"""

_IMPORTED = """
import _pywhispercpp as whisper
generate_with_avllm(path)
print(whisper.whisper_print_system_info())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems name symbols by library")
@pytest.mark.parametrize("order", [_OTHER_FIRST, _AVLLM_FIRST], ids=["other first", "avllm first"])
def test_both_copies_compute_in_one_process(model_path: Path, order: str) -> None:
    output = _run(order, model_path)
    assert output.count("other 0.") == order.count("\ncompute_with_other(")
    assert output.count(" 5.0") == order.count("\ncompute_with_other(")
    assert output.count("avllm  over a lazy dog") == order.count("\ngenerate_with_avllm(")


def test_both_packages_import_in_one_process(model_path: Path) -> None:
    output = _run(_IMPORTED, model_path)
    assert "avllm  over a lazy dog" in output
    assert "CPU" in output


@pytest.mark.skipif(sys.platform != "linux", reason="reads an ELF symbol table")
def test_the_library_shows_only_our_own_names() -> None:
    import avllm.llama

    library = Path(avllm.llama.backend.__file__).parent / "libavllm_llama.so"
    table = subprocess.run(
        ["nm", "-D", "--defined-only", str(library)], capture_output=True, text=True, check=True
    )
    names = [line.split()[-1] for line in table.stdout.splitlines()]
    assert "avllm_llama_decode" in names
    assert [name for name in names if not name.startswith("avllm_")] == []


def _run(script: str, model_path: Path) -> str:
    code = f"path = {str(model_path)!r}\n{_OTHER}\n{script}"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
