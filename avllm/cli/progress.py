"""Progress on stderr: of a pull, and of a model that is being loaded.

A bar on a terminal, a few lines in a log file, nothing at all when there is nothing to do.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from avllm.models import ProgressCallback, ProgressEvent

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

# A log file gets a line per this many per cent.
LOG_STEP = 25


@contextmanager
def pull_progress() -> Iterator[ProgressCallback]:
    """Give a callback for `avllm.models.resolve` that shows how the pull goes."""
    if not sys.stderr.isatty():
        yield _PullLog()
        return
    bars = _PullBars()
    try:
        yield bars
    finally:
        bars.close()


@contextmanager
def load_progress(name: str) -> Iterator[Callable[[float], bool]]:
    """Give a callback for an engine that shows a bar, gone once the model is loaded."""
    if not sys.stderr.isatty():
        yield lambda fraction: True
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(f"loading {name}", total=1.0)

        def show(fraction: float) -> bool:
            bars.update(task, completed=fraction)
            return True

        yield show


class _PullBars:
    """A bar per file and stage; rich is imported with the first event."""

    def __init__(self) -> None:
        self._bars: Progress | None = None
        self._tasks: dict[tuple[str, str], TaskID] = {}

    def __call__(self, event: ProgressEvent) -> None:
        bars = self._bars = self._bars or _start_bars()
        key = (event.file, event.stage)
        if key not in self._tasks:
            self._tasks[key] = bars.add_task(_describe(event), total=event.total)
        bars.update(self._tasks[key], completed=event.completed, total=event.total)

    def close(self) -> None:
        if self._bars is not None:
            self._bars.stop()


def _start_bars() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    bars.start()
    return bars


class _PullLog:
    """A line when a stage begins and one per `LOG_STEP` per cent."""

    def __init__(self) -> None:
        self._last: tuple[str, int] | None = None

    def __call__(self, event: ProgressEvent) -> None:
        percent = 100 * event.completed // event.total if event.total else 0
        now = (_describe(event), percent // LOG_STEP)
        if now != self._last:
            self._last = now
            click.echo(f"{now[0]}: {percent} %" if event.total else now[0], err=True)


def _describe(event: ProgressEvent) -> str:
    if event.stage == "waiting":
        return f"waiting: another process pulls {event.file}"
    return f"{event.stage} {event.file}"
