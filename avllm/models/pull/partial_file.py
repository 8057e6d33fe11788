"""PartialFile: what has arrived of a download, on disk, so that the next attempt can go on."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import msgspec

from avllm.models.progress import ProgressCallback
from avllm.models.pull.checksum import hash_file


class Fingerprint(msgspec.Struct, frozen=True):
    """What identifies one version of a remote file.

    Attributes:
        url: where it was asked for.
        validator: its ETag, or else its Last-Modified, or None.
        size: its bytes, or None when the server does not tell.
    """

    url: str
    validator: str | None = None
    size: int | None = None


class PartialFile:
    """``<destination>.part`` with its fingerprint beside it and a running SHA-256.

    A context manager; leaving it closes the file and keeps it. One thread, under the lock of the
    model's folder.

    Args:
        destination: name that the file gets from `commit`.
        on_progress: told while bytes of an earlier attempt are hashed.
    """

    def __init__(self, destination: Path, on_progress: ProgressCallback) -> None:
        self.destination = destination
        self.size = 0
        self._on_progress = on_progress
        self._path = destination.with_name(destination.name + ".part")
        self._notes = destination.with_name(destination.name + ".part.json")
        self._hash = hashlib.sha256()
        self._file: BinaryIO | None = None

    def __enter__(self) -> PartialFile:
        self._file = self._path.open("ab")
        self.size = self._path.stat().st_size
        if self.size:
            self._hash = hash_file(self._path, self.destination.name, self._on_progress)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._opened().close()

    @property
    def sha256(self) -> str:
        """SHA-256 of what is there, in hex."""
        return self._hash.hexdigest()

    @property
    def fingerprint(self) -> Fingerprint | None:
        """The version of the remote file that the bytes belong to, if it was noted."""
        try:
            return msgspec.json.decode(self._notes.read_bytes(), type=Fingerprint)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def restart(self, fingerprint: Fingerprint) -> None:
        """Drop every byte and begin with the version `fingerprint`."""
        self._opened().truncate(0)
        self.size = 0
        self._hash = hashlib.sha256()
        self._notes.write_bytes(msgspec.json.encode(fingerprint))

    def append(self, chunk: bytes) -> None:
        """Write `chunk` after what is there."""
        self._opened().write(chunk)
        self._hash.update(chunk)
        self.size += len(chunk)

    def commit(self) -> None:
        """Make the bytes durable and give the file its final name, atomically."""
        file = self._opened()
        file.flush()
        os.fsync(file.fileno())
        self._path.replace(self.destination)
        self._notes.unlink(missing_ok=True)

    def discard(self) -> None:
        """Delete what is there: it is known to be wrong."""
        self._path.unlink(missing_ok=True)
        self._notes.unlink(missing_ok=True)

    def _opened(self) -> BinaryIO:
        if self._file is None:
            raise RuntimeError("a PartialFile is used inside its with block")
        return self._file
