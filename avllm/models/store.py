"""ModelStore: the folder where pulled models live, one folder and one manifest per model.

    <cache>/models/<key>/model.json     manifest: name, source, files; written atomically
                        /<file>.gguf
                        /<file>.gguf.part, .part.json   while a pull runs or after it was cut
                  /.locks/<key>.lock    held by the process that pulls or removes

A model is there when its manifest says so and its files have the stated sizes. Nothing here
touches the network or knows how a source is fetched.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from avllm.errors import DownloadError
from avllm.models.source import Source

MANIFEST = "model.json"
LOCK_POLL_SECONDS = 0.2
logger = logging.getLogger(__name__)


class StoredFile(msgspec.Struct, frozen=True):
    """A file of a pulled model: its name, bytes and SHA-256 in hex."""

    name: str
    size: int
    sha256: str


class StoredModel(msgspec.Struct, frozen=True, kw_only=True):
    """The manifest of a model in the store.

    Attributes:
        key: name of its folder.
        name: what the user called it when it was pulled.
        source: where it came from, exactly.
        files: its files, the one to load first; empty until the pull is complete.
        modified: when the manifest was written, in seconds since the epoch.
    """

    key: str
    name: str
    source: Source
    files: tuple[StoredFile, ...] = ()
    modified: float = 0.0

    @property
    def is_complete(self) -> bool:
        """False while the model is being pulled, and after a pull that was cut short."""
        return bool(self.files)


def default_cache_dir() -> Path:
    """Return avllm's cache folder: ``AVLLM_CACHE_DIR``, or the platform's place for caches."""
    if folder := os.environ.get("AVLLM_CACHE_DIR"):
        return Path(folder).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("avllm")


class ModelStore:
    """The models below one folder. Safe to use from many threads and processes at once.

    Args:
        folder: where the models are; None takes ``models`` in `default_cache_dir`.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder if folder is not None else default_cache_dir() / "models"

    def models(self) -> list[StoredModel]:
        """Return every model, also those whose pull was cut short, ordered by name."""
        keys = (path.parent.name for path in self.folder.glob(f"*/{MANIFEST}"))
        found = (self._read(key) for key in keys)
        return sorted((m for m in found if m is not None), key=lambda m: (m.name.lower(), m.key))

    def get(self, key: str) -> StoredModel | None:
        """Return the model in folder `key` if it is complete and its files are, else None."""
        model = self._read(key)
        if model is None or not model.is_complete:
            return None
        return model if all(self._has(key, file) for file in model.files) else None

    def path(self, model: StoredModel) -> Path:
        """Return the file to load of a complete model."""
        return self.folder / model.key / model.files[0].name

    def size_on_disk(self, model: StoredModel) -> int:
        """Return the bytes that `model` takes, those of a pull that was cut short included."""
        return sum(path.stat().st_size for path in (self.folder / model.key).glob("*.gguf*"))

    def write(self, model: StoredModel) -> StoredModel:
        """Write the manifest of `model` atomically, stamped with the time; hold its lock."""
        folder = self.folder / model.key
        folder.mkdir(parents=True, exist_ok=True)
        stamped = msgspec.structs.replace(model, modified=time.time())
        temporary = folder / f"{MANIFEST}.tmp"
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(stamped)))
        temporary.replace(folder / MANIFEST)
        return stamped

    def remove(self, model: StoredModel) -> int:
        """Delete `model` and its folder; return the bytes that this freed.

        A process that has loaded the model keeps its open file and is not disturbed.

        Raises:
            DownloadError: another process is pulling it right now.
        """

        def refuse() -> None:
            raise DownloadError(
                f"{model.name} is being pulled by another process; stop that first."
            )

        with self.lock(model.key, on_wait=refuse):
            freed = self.size_on_disk(model)
            (self.folder / model.key / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(self.folder / model.key, ignore_errors=True)
        return freed

    def find(self, name: str) -> list[StoredModel]:
        """Return the models that were pulled under `name`, or the one whose folder it names."""
        models = self.models()
        return [m for m in models if m.key == name] or [m for m in models if m.name == name]

    @contextmanager
    def lock(self, key: str, on_wait: Callable[[], object]) -> Iterator[None]:
        """Hold the lock of folder `key`; another holder is waited for after calling `on_wait`.

        The lock ends with its process, so a killed pull leaves nothing behind.
        """
        import filelock

        path = self.folder / ".locks" / f"{key}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            on_wait()
            lock.acquire(poll_interval=LOCK_POLL_SECONDS)
        try:
            yield
        finally:
            lock.release()

    def _read(self, key: str) -> StoredModel | None:
        path = self.folder / key / MANIFEST
        try:
            model = msgspec.json.decode(path.read_bytes(), type=StoredModel)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            logger.warning("ignoring the unreadable manifest %s: %s", path, error)
            return None
        # The folder decides: a copied or renamed one must not remove the original.
        return msgspec.structs.replace(model, key=key)

    def _has(self, key: str, file: StoredFile) -> bool:
        path = self.folder / key / file.name
        return path.is_file() and path.stat().st_size == file.size
