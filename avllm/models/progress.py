"""ProgressEvent: what a pull tells about itself while it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

# "waiting": another process pulls the same model; "verifying": bytes on disk are being hashed;
# "unpacking": the model is being taken out of the package that carries it.
PullStage = Literal["waiting", "downloading", "verifying", "unpacking"]


class ProgressEvent(msgspec.Struct, frozen=True):
    """How far a pull has come with one file.

    Attributes:
        file: name of the file, as it will be called in the store.
        completed: bytes that are there, those of an earlier, interrupted pull included.
        total: bytes that there will be, or None when the other side does not tell.
        stage: what is being done with the file.
    """

    file: str
    completed: int
    total: int | None
    stage: PullStage = "downloading"


# Called in the thread that pulls. An exception that it raises ends the pull; what has arrived
# stays on disk and the next pull goes on from there.
ProgressCallback = Callable[[ProgressEvent], object]


def ignore_progress(event: ProgressEvent) -> None:
    """Do nothing with `event`: the callback of a pull that nobody watches."""
