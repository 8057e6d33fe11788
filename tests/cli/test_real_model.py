"""The commands on the default model, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROMPT = "The quick brown fox jumps"
GREEDY = ("--temperature", "0", "--max-tokens", "5")


def avllm(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command; the model is named by its path, so no cache matters."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-m", "avllm", *arguments],
        input=stdin, capture_output=True, text=True, timeout=120, env=environment,
        cwd=Path(__file__).parent,  # -m looks there first, and must find the installed package
    )  # fmt: skip


def test_generate(model_path: Path) -> None:
    done = avllm("generate", "-", "-m", str(model_path), *GREEDY, stdin=PROMPT + "\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(" over a lazy dog")


def test_generate_json(model_path: Path) -> None:
    done = avllm("generate", PROMPT, "-m", str(model_path), "-n", "2", "--json", *GREEDY)
    result = json.loads(done.stdout)
    texts = [output["text"] for output in result["outputs"]]
    assert len(texts) == 2
    assert all(text.startswith(" over a lazy dog") for text in texts)
    assert result["usage"]["completion_tokens"] == 10


def test_chat(model_path: Path) -> None:
    lines = "Hi\n/clear\nHi\n"
    done = avllm("chat", str(model_path), "--temperature", "0", "--max-tokens", "16", stdin=lines)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == second
    assert first
    assert done.stderr.count("tokens/s") == 2


def test_prompt_that_never_fits(model_path: Path) -> None:
    done = avllm("generate", "word " * 400, "-m", str(model_path), "--ctx-size", "256")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_show(model_path: Path) -> None:
    facts = json.loads(avllm("model", "show", str(model_path), "--json").stdout)
    assert facts["architecture"] == "llama"
    assert facts["context_length"] == 8192
    assert facts["size_bytes"] == model_path.stat().st_size
    assert facts["metadata"]["general.architecture"] == "llama"
    template = avllm("model", "show", str(model_path), "--template").stdout
    assert "<|im_start|>" in template
    assert "context length" in avllm("model", "show", str(model_path)).stdout


@pytest.mark.parametrize("command", [["generate", "x", "-m"], ["serve"], ["chat"]])
def test_file_that_is_no_model(command: list[str], tmp_path: Path) -> None:
    path = tmp_path / "page.gguf"
    path.write_text("<html>")
    done = avllm(*command, str(path))
    assert done.returncode == 1
    assert "error: " in done.stderr.lower()
    assert "Traceback" not in done.stderr
