"""What the package shows to the outside, and which way its parts depend on each other."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import avllm

ROOT = Path(__file__).parent.parent

# Part -> what it must not import. Calls go ui -> server -> engine -> llama, data comes back.
FORBIDDEN = {
    "avllm/llama": ("avllm.engine", "avllm.models", "avllm.server", "avllm.cli", "avllm.ui"),
    "avllm/engine": ("avllm.server", "avllm.cli", "avllm.ui", "starlette", "granian"),
    "avllm/models": ("avllm.engine", "avllm.llama", "avllm.server", "avllm.cli", "avllm.ui"),
    "server": ("avllm.llama", "avllm.cli", "server"),
}


@pytest.mark.parametrize("part", sorted(FORBIDDEN))
def test_dependencies_point_one_way(part: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sorted((ROOT / part).rglob("*.py*"))
        if path.suffix in {".py", ".pyx"}
        for name in _imports(path)
        if any(name == banned or name.startswith(f"{banned}.") for banned in FORBIDDEN[part])
    ]
    assert wrong == []


def test_only_the_serve_command_imports_the_server_and_only_when_it_runs() -> None:
    importers = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "avllm").rglob("*.py")
        for name in _imports(path)
        if name.startswith("avllm.server")
    }
    assert importers == {"avllm/cli/serve.py"}
    code = "import sys, avllm.cli; avllm.cli.main; print('avllm.server' in sys.modules)"
    assert _python(code) == "False\n"


def test_every_public_name_is_there_and_sorted() -> None:
    assert sorted(avllm.__all__) == avllm.__all__
    for name in avllm.__all__:
        assert getattr(avllm, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        avllm.nothing  # noqa: B018


def test_the_parts_are_found_under_their_installed_names() -> None:
    assert importlib.import_module("avllm.server").create_app
    assert importlib.import_module("avllm.ui").DIRECTORY.name == "dist"


def test_importing_avllm_loads_no_compiled_code() -> None:
    code = "import sys, avllm; print([m for m in sys.modules if m.startswith('avllm.llama')])"
    assert _python(code) == "[]\n"


def test_errors_need_no_compiled_code() -> None:
    code = "import sys, avllm.errors; print('avllm.llama' in sys.modules)"
    assert _python(code) == "False\n"


def _imports(path: Path) -> Iterator[str]:
    # Cython is no Python: its import lines are read as text.
    if path.suffix == ".pyx":
        for line in path.read_text().splitlines():
            words = line.split()
            if words[:1] in (["from"], ["import"], ["cimport"]) and len(words) > 1:
                yield words[1]
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    ).stdout
