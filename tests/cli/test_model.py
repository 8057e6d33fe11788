"""avllm model ls, pull, rm, on a store filled from a server on loopback."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from models.file_server import FileServer

from .conftest import Run

BODY = b"GGUF" + bytes(99_996)


@pytest.fixture
def server() -> Iterator[FileServer]:
    """A server with one model at /tiny.gguf."""
    with FileServer() as running:
        running.serve("/tiny.gguf", BODY)
        yield running


def test_pull_list_remove(run: Run, server: FileServer, cache: Path) -> None:
    result = run("model", "pull", f"{server.url}/tiny.gguf")
    assert result.exit_code == 0, result.output
    assert "downloading tiny.gguf: 100 %" in result.stderr
    path = Path(result.stdout.split(": ", 1)[1].strip())
    assert path.read_bytes() == BODY
    assert path.is_relative_to(cache / "models")

    header, row = run("model", "ls").stdout.splitlines()
    assert header.split() == ["NAME", "SIZE", "SOURCE", "MODIFIED", "LICENCE"]
    assert row.split()[:4] == ["tiny", "100.0", "kB", f"{server.url}/tiny.gguf"]

    assert run("model", "rm", "tiny").stdout == "removed tiny (100.0 kB)\n"
    assert not path.exists()
    assert "No models here yet" in run("model", "ls").stdout


def test_list_as_json(run: Run, server: FileServer) -> None:
    run("model", "pull", f"{server.url}/tiny.gguf")
    (entry,) = json.loads(run("model", "ls", "--json").stdout)
    assert (entry["name"], entry["size_bytes"], entry["complete"]) == ("tiny", len(BODY), True)
    assert Path(entry["path"]).is_file()


def test_list_all_has_the_short_names_and_licences(run: Run) -> None:
    lines = run("model", "ls", "--all").stdout.splitlines()
    smollm2 = next(line for line in lines if line.startswith("smollm2"))
    assert "not pulled" in smollm2
    assert smollm2.rstrip().endswith("Apache-2.0")


def test_incomplete_pull_is_listed_and_can_be_removed(run: Run, server: FileServer) -> None:
    url = f"{server.url}/tiny.gguf#sha256={'0' * 64}"
    result = run("model", "pull", url)
    assert result.exit_code == 1
    assert "is not the file it should be" in result.stderr
    assert "(incomplete)" in run("model", "ls").stdout
    assert run("model", "rm", "tiny").exit_code == 0


def test_remove_checks_every_name_first(run: Run, server: FileServer) -> None:
    run("model", "pull", f"{server.url}/tiny.gguf")
    result = run("model", "rm", "tiny", "smollm2")
    assert result.exit_code == 1
    assert "smollm2 is not on this machine" in result.stderr
    assert "tiny" in run("model", "ls").stdout
    assert run("model", "del", "tiny").exit_code == 0


def test_show_does_not_pull(run: Run, server: FileServer) -> None:
    result = run("model", "show", f"{server.url}/tiny.gguf")
    assert result.exit_code == 1
    assert "Run: avllm model pull" in result.stderr
    assert server.received == []


def test_hugging_face_endpoint_and_token_of_the_environment(
    server: FileServer, cache: Path
) -> None:
    """In a process of its own: huggingface_hub reads HF_ENDPOINT when it is imported."""
    digest = hashlib.sha256(BODY).hexdigest()
    lfs = {"size": len(BODY), "sha256": digest, "pointerSize": 130}
    siblings = [{"rfilename": "x-Q4_0.gguf", "size": len(BODY), "blobId": "0", "lfs": lfs}]
    server.serve_json("/api/models/o/r", {"id": "o/r", "sha": "c0ffee", "siblings": siblings})
    server.serve("/o/r/resolve/c0ffee/x-Q4_0.gguf", BODY)
    environment = os.environ | {
        "HF_ENDPOINT": server.url,
        "HF_TOKEN": "hf_secret",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-m", "avllm", "model", "pull", "o/r:Q4_0"],
        capture_output=True, text=True, timeout=60, env=environment, cwd=cache.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("o/r:Q4_0: ")
    asked = {r.path: r.headers.get("authorization") for r in server.received if "/o/r" in r.path}
    assert asked == dict.fromkeys(
        ["/api/models/o/r", "/o/r/resolve/c0ffee/x-Q4_0.gguf"], "Bearer hf_secret"
    )
