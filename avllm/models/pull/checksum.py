"""Checksums of files on disk, computed with progress."""

from __future__ import annotations

import hashlib
from pathlib import Path

from avllm.errors import DownloadError
from avllm.models.progress import ProgressCallback, ProgressEvent

CHUNK_BYTES = 1 << 20


def hash_file(path: Path, name: str, on_progress: ProgressCallback) -> hashlib._Hash:
    """Return the SHA-256 state after all bytes of `path`; reports them as ``verifying``."""
    state = hashlib.sha256()
    total = path.stat().st_size
    done = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            state.update(chunk)
            done += len(chunk)
            on_progress(ProgressEvent(name, done, total, "verifying"))
    return state


def check_digest(name: str, actual: str, expected: str) -> None:
    """Raise DownloadError if `actual` is not the SHA-256 that `name` must have."""
    if actual != expected:
        raise DownloadError(
            f"{name} is not the file it should be: its SHA-256 is {actual}, expected {expected}. "
            "It was deleted; if pulling again gives the same, the source has changed."
        )
