"""The command as a whole: help, errors, exit codes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from avllm.cli import main
from avllm.errors import AvllmError

from .conftest import Run


def commands(
    group: click.Group = main, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command with its path."""
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


ALL = dict(commands())


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_help(run: Run, path: tuple[str, ...]) -> None:
    result = run(*path, "--help")
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"Usage: avllm {' '.join(path)}")


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_option_is_explained_in_one_line(path: tuple[str, ...]) -> None:
    for parameter in ALL[path].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter
            assert "\n" not in parameter.help


@pytest.mark.parametrize("path", [p for p in ALL if len(p) == 1], ids=" ".join)
def test_help_shows_examples(run: Run, path: tuple[str, ...]) -> None:
    assert f"\n    avllm {path[0]}" in run(*path, "-h").output


def test_unknown_command_is_a_usage_error(run: Run) -> None:
    result = run("sevre")
    assert result.exit_code == 2
    assert "No such command 'sevre'" in result.stderr


def failing(error: BaseException) -> click.Command:
    """Return a command that raises `error`."""

    @click.command("fail")
    def fail() -> None:
        raise error

    return fail


def test_error_is_a_line_and_exit_code_1(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(main.commands, "fail", failing(AvllmError("it broke. Do this.")))
    result = run("fail")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: it broke. Do this.\n"


def test_debug_lets_the_traceback_through(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    error = AvllmError("it broke")
    monkeypatch.setitem(main.commands, "fail", failing(error))
    assert run("--debug", "fail").exception is error
    monkeypatch.setenv("AVLLM_DEBUG", "1")
    assert run("fail").exception is error


def test_ctrl_c_is_exit_code_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(main.commands, "fail", failing(KeyboardInterrupt()))
    result = run("fail")
    assert result.exit_code == 130
    assert "Traceback" not in result.output


def child(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python on `arguments`, with this process's import path."""
    code = f"import sys; sys.path[:] = {sys.path!r}; sys.argv[0] = 'avllm';"
    return subprocess.run(
        [sys.executable, "-c", code + arguments[0], *arguments[1:]],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_python_m_avllm() -> None:
    start = "import runpy; runpy.run_module('avllm', run_name='__main__')"
    done = child(start, "model", "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: avllm model")


def test_starting_imports_nothing_heavy() -> None:
    heavy = {"rich", "httpx2", "huggingface_hub", "numpy", "granian", "starlette", "avllm.server"}
    done = child(f"import avllm.cli; print(sorted({heavy!r} & set(sys.modules)))")
    assert done.stdout.strip() == "[]", done.stderr
