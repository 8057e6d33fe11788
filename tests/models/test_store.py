"""The store: manifests, sizes, removal, locks, what a damaged folder does."""

from __future__ import annotations

from pathlib import Path

import pytest

from avllm.errors import DownloadError
from avllm.models import ModelStore, StoredFile, StoredModel
from avllm.models.source import UrlSource
from avllm.models.store import MANIFEST, default_cache_dir

SOURCE = UrlSource("https://host/tiny.gguf")


@pytest.fixture
def model(store: ModelStore) -> StoredModel:
    """A complete model of ten bytes."""
    file = StoredFile("tiny.gguf", 10, "0" * 64)
    model = store.write(StoredModel(key="tiny", name="tiny", source=SOURCE, files=(file,)))
    store.path(model).write_bytes(bytes(10))
    return model


def test_empty_store(store: ModelStore) -> None:
    assert store.models() == []
    assert store.get("tiny") is None


def test_written_model_is_found(store: ModelStore, model: StoredModel) -> None:
    assert store.models() == [model]
    assert store.get("tiny") == model
    assert store.find("tiny") == [model]
    assert store.size_on_disk(model) == 10
    assert model.modified > 0


def test_file_of_another_size_is_not_the_model(store: ModelStore, model: StoredModel) -> None:
    store.path(model).write_bytes(bytes(9))
    assert store.get("tiny") is None


def test_unreadable_manifest_is_no_model(
    store: ModelStore, model: StoredModel, caplog: pytest.LogCaptureFixture
) -> None:
    (store.folder / "tiny" / MANIFEST).write_text("{")
    assert store.models() == []
    assert "unreadable manifest" in caplog.text


def test_copied_folder_is_a_model_of_its_own(store: ModelStore, model: StoredModel) -> None:
    copy = store.folder / "copy"
    (store.folder / "tiny").rename(copy)
    (found,) = store.models()
    assert found.key == "copy"
    assert store.path(found).parent == copy


def test_remove(store: ModelStore, model: StoredModel) -> None:
    assert store.remove(model) == 10
    assert store.models() == []
    assert not (store.folder / "tiny").exists()


def test_remove_while_it_is_pulled(store: ModelStore, model: StoredModel) -> None:
    def unexpected() -> None:
        raise AssertionError("nobody else holds the lock")

    with (
        store.lock("tiny", unexpected),
        pytest.raises(DownloadError, match="being pulled by another process"),
    ):
        store.remove(model)
    assert store.get("tiny") == model


def test_cache_folder_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVLLM_CACHE_DIR", str(tmp_path))
    assert ModelStore().folder == tmp_path / "models"
    monkeypatch.delenv("AVLLM_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache_dir().name == "avllm"
