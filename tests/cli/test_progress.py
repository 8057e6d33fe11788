"""Progress on a terminal and in a log file."""

from __future__ import annotations

import sys

import pytest

from avllm.cli.progress import load_progress, pull_progress
from avllm.models import ProgressEvent


def show_a_pull() -> None:
    with pull_progress() as on_progress:
        on_progress(ProgressEvent("x.gguf", 0, None, "waiting"))
        for percent in range(0, 101, 10):
            on_progress(ProgressEvent("x.gguf", percent * 1000, 100_000))


def test_log_file_gets_few_lines(capsys: pytest.CaptureFixture[str]) -> None:
    show_a_pull()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "waiting: another process pulls x.gguf"
    assert lines[1:] == [f"downloading x.gguf: {n} %" for n in (0, 30, 50, 80, 100)]


def test_terminal_gets_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    show_a_pull()
    shown = capsys.readouterr().err
    assert "downloading x.gguf" in shown
    assert "100.0/100.0 kB" in shown


def test_nothing_to_pull_shows_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with pull_progress():
        pass
    assert capsys.readouterr().err == ""


def test_load_bar_names_the_model_and_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with load_progress("smollm2") as on_load:
        assert on_load(0.5) is True
    assert "loading smollm2" in capsys.readouterr().err
