"""resolve: from what a user typed to a file that can be loaded."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from avllm.errors import ModelNotFoundError
from avllm.models.progress import ProgressCallback, ignore_progress
from avllm.models.pull import pull_model
from avllm.models.pull.pull import is_version
from avllm.models.reference import ModelReference, parse_reference
from avllm.models.source import HubSource, Source
from avllm.models.store import ModelStore, StoredModel
from avllm.models.variant import choose_variant, is_variant


class ResolvedModel(msgspec.Struct, frozen=True):
    """A model file that is on disk.

    Attributes:
        name: what to call the model: its short name, ``owner/repo:variant``, or the file's stem.
        path: the file to load.
    """

    name: str
    path: Path


def resolve(
    name: str | os.PathLike[str],
    *,
    on_progress: ProgressCallback | None = None,
    pull: bool = True,
    store: ModelStore | None = None,
) -> ResolvedModel:
    """Find the file of a model, pulling it first where needed.

    Args:
        name: in this order: the path of a file; a short name; the name of a model that was
            pulled; ``owner/repo[:quant]`` of Hugging Face; a URL, optionally with
            ``#sha256=`` and its checksum.
        on_progress: told how a pull goes; called in this thread.
        pull: False takes only what is on disk already; never uses the network.
        store: where pulled models live; None takes the default one.

    Raises:
        ModelNotFoundError: nothing is known under this name, or it is not there and may not be
            pulled.
        DownloadError: the pull failed; what has arrived is kept for the next one.
    """
    if path := _local_path(name):
        return ResolvedModel(path.stem, path)
    store = store or ModelStore()
    stored, reference = _look_up(str(name), store)
    if stored is None and pull and reference is not None:
        stored = pull_model(reference, store, on_progress or ignore_progress)
    if stored is None or not stored.is_complete:
        raise ModelNotFoundError(f"{name} is not on this machine. Run: avllm model pull {name}")
    return ResolvedModel(reference.name if reference else stored.name, store.path(stored))


def find_stored(name: str, store: ModelStore) -> StoredModel:
    """Return the model in the store that `name` stands for, whole or cut short.

    Raises:
        ModelNotFoundError: it is not in the store, or `name` stands for several.
    """
    try:
        source = parse_reference(name).source
    except ModelNotFoundError:
        found = store.find(name)
    else:
        found = [model for model in store.models() if _is_of(model, source)]
    if not found:
        raise ModelNotFoundError(f"{name} is not on this machine. See: avllm model ls")
    if len(found) > 1:
        keys = " or ".join(model.key for model in found)
        raise ModelNotFoundError(f"{name!r} stands for several pulled models. Give {keys}.")
    return found[0]


def _look_up(name: str, store: ModelStore) -> tuple[StoredModel | None, ModelReference | None]:
    """Return the model in the store and what the name stands for, as far as there are such."""
    try:
        reference = parse_reference(name)
    except ModelNotFoundError:
        if store.find(name):
            return find_stored(name, store), None
        raise
    source = reference.source
    if isinstance(source, HubSource):
        return _stored_variant(source, store), reference
    stored = store.get(source.key)
    return (stored if stored and is_version(stored, source) else None), reference


def _stored_variant(source: HubSource, store: ModelStore) -> StoredModel | None:
    """Choose among the pulled variants of a repository as one would among all of them."""
    repo = HubSource(source.repo)
    pulled = {_hub_file(m): m for m in store.models() if _is_of(m, repo) and store.get(m.key)}
    try:
        variant = choose_variant(source.repo, pulled, source.variant)
    except ModelNotFoundError:
        return None
    return pulled[variant.files[0]]


def _is_of(model: StoredModel, source: Source) -> bool:
    """Tell whether `model` is what `source` names, or one of its variants."""
    if not isinstance(source, HubSource) or not isinstance(model.source, HubSource):
        return model.key == source.key
    if model.source.repo != source.repo or source.variant is None:
        return model.source.repo == source.repo
    return is_variant(_hub_file(model), source.variant)


def _hub_file(model: StoredModel) -> str:
    """Return the path in its repository that the variant of `model` has, or would have unsplit."""
    return f"{model.source.variant}.gguf" if isinstance(model.source, HubSource) else ""


def _local_path(name: str | os.PathLike[str]) -> Path | None:
    """Return `name` as a path if it is one: it exists as a file, or can be nothing else.

    Raises:
        ModelNotFoundError: it can be nothing else and is not there.
    """
    path = Path(name).expanduser()
    if isinstance(name, str):
        if name.lower().startswith(("http://", "https://")):
            return None
        separators = {os.sep, os.altsep} - {None}
        looks_like_path = name.lower().endswith(".gguf") or any(s in name for s in separators if s)
        if looks_like_path and path.is_file():
            return path
        explicit = name.startswith((".", "~", os.sep)) or (
            name.lower().endswith(".gguf") and ":" not in name
        )
        if not explicit:
            return None
    if not path.exists():
        raise ModelNotFoundError(f"there is no file {path}.")
    return path
