"""The NEON kernel, cross-compiled and emulated: right without an ARM machine at hand."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
KERNELS = HERE.parent.parent / "avllm" / "llama" / "kernels"
SOURCES = ["attention_plan", "attention_runnable", "attention_portable", "attention_neon"]

pytestmark = pytest.mark.skipif(
    not (shutil.which("aarch64-linux-gnu-g++") and shutil.which("qemu-aarch64")),
    reason="needs g++-aarch64-linux-gnu and qemu-user",
)


@pytest.mark.timeout(900)
def test_neon_kernel_under_emulation(tmp_path: Path) -> None:
    program = tmp_path / "self_test"
    files = [str(HERE / "self_test.cpp"), *(str(KERNELS / f"{name}.cpp") for name in SOURCES)]
    flags = ["-std=c++17", "-O2", "-fno-math-errno", "-static", "-DAVLLM_ATTENTION_KERNEL"]
    command = ["aarch64-linux-gnu-g++", *flags, f"-I{KERNELS}", *files, "-o", str(program)]
    subprocess.run(command, check=True, timeout=600)
    run = subprocess.run(
        ["qemu-aarch64", str(program)], capture_output=True, text=True, timeout=250, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "best kernel neon" in run.stdout
