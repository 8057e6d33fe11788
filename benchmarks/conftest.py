"""Options and fixtures of the benchmarks: rounds, the model file, the table at the end."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROWS = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("avllm benchmarks")
    group.addoption("--rounds", type=int, default=3, help="interleaved rounds of each comparison")
    group.addoption("--model", default="smollm2", help="model to measure: alias or GGUF file")
    group.addoption("--openvino-python", help="interpreter that has openvino-genai")
    group.addoption("--peers", default="build/peers/bin", help="folder of llama.cpp's own tools")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = []


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if config.stash[ROWS]:
        terminalreporter.section("avllm beside its peers (medians)")
        for row in config.stash[ROWS]:
            terminalreporter.write_line(row)


@pytest.fixture
def record_figures(
    benchmark: Any, pytestconfig: pytest.Config
) -> Callable[[str, dict[str, float]], None]:
    """Report figures of a benchmark that has no peer."""

    def record(title: str, figures: dict[str, float]) -> None:
        benchmark.extra_info |= figures
        pytestconfig.stash[ROWS] += [_row(title, name, value) for name, value in figures.items()]

    return record


def _row(title: str, name: str, value: float) -> str:
    return f"{title:<44} {name:<36} avllm {value:10.3f}"


@pytest.fixture(scope="session")
def rounds(pytestconfig: pytest.Config) -> int:
    """How often each side of a comparison runs."""
    value: int = pytestconfig.getoption("--rounds")
    return value


@pytest.fixture(scope="session")
def model_file(pytestconfig: pytest.Config) -> Path:
    """GGUF file of the model that is measured."""
    from avllm.models import resolve

    return resolve(pytestconfig.getoption("--model")).path


@pytest.fixture(scope="session")
def peers(pytestconfig: pytest.Config) -> Path:
    """Folder with llama-batched-bench and llama-server of the same llama.cpp (`make peers`)."""
    folder = Path(pytestconfig.getoption("--peers")).resolve()
    if not (folder / "llama-server").exists():
        pytest.skip(f"no peers in {folder}: run `make peers`")
    return folder


@pytest.fixture
def compare(
    benchmark: Any, rounds: int, pytestconfig: pytest.Config
) -> Callable[[str, Callable[[], dict[str, float]], Callable[[], dict[str, float]]], None]:
    """Run two sides in turn and report each figure's medians and their ratio.

    pytest-benchmark times our side; both sides' own figures go into ``extra_info`` and the table.
    """

    def run(
        title: str,
        ours: Callable[[], dict[str, float]],
        theirs: Callable[[], dict[str, float]],
    ) -> None:
        our_figures: list[dict[str, float]] = []
        their_figures: list[dict[str, float]] = []
        benchmark.pedantic(
            lambda: our_figures.append(ours()),
            setup=lambda: their_figures.append(theirs()),
            rounds=rounds,
            iterations=1,
        )
        for name in our_figures[0]:
            mine = statistics.median(figures[name] for figures in our_figures)
            row = _row(title, name, mine)
            benchmark.extra_info[name] = mine
            if name in their_figures[0]:
                peer = statistics.median(figures[name] for figures in their_figures)
                ratio = mine / peer if peer else float("nan")
                row += f"   peer {peer:10.3f}   ratio {ratio:6.3f}"
                benchmark.extra_info |= {f"{name} of the peer": peer, f"{name} ratio": ratio}
            pytestconfig.stash[ROWS].append(row)

    return run
