"""resolve with paths and with names that lead nowhere; nothing here uses the network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from avllm.errors import ModelNotFoundError
from avllm.models import ModelStore, ResolvedModel, find_stored, resolve


@pytest.fixture
def model_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in a folder below the working directory."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "some" / "Model.Q4_0.gguf"
    path.parent.mkdir()
    path.write_bytes(b"GGUF")
    (path.parent / "model.bin").write_bytes(b"GGUF")
    return path


@pytest.mark.parametrize("name", ["some/Model.Q4_0.gguf", "./some/Model.Q4_0.gguf"])
def test_path(model_file: Path, store: ModelStore, name: str) -> None:
    found = resolve(name, store=store)
    assert found.name == "Model.Q4_0"
    assert found.path.samefile(model_file)


def test_path_object_and_other_suffix(model_file: Path, store: ModelStore) -> None:
    assert resolve(model_file, store=store) == ResolvedModel("Model.Q4_0", model_file)
    assert resolve("some/model.bin", store=store).name == "model"


def test_path_wins_over_repository(model_file: Path, store: ModelStore) -> None:
    """some/model.bin could be owner/repo as well; an existing file decides."""
    assert resolve("some/model.bin", pull=False, store=store).path == Path("some/model.bin")


def test_folder_is_left_to_the_loader_to_refuse(model_file: Path, store: ModelStore) -> None:
    assert resolve("./some", store=store).path == Path("some")


@pytest.mark.parametrize("name", ["missing.gguf", "./missing", "/missing/x", "~/missing-x.gguf"])
def test_missing_file(model_file: Path, store: ModelStore, name: str) -> None:
    with pytest.raises(ModelNotFoundError, match="there is no file"):
        resolve(name, store=store)


@pytest.mark.parametrize("name", ["smollm2", "owner/repo", "https://host/x.gguf"])
def test_not_pulled(store: ModelStore, name: str) -> None:
    with pytest.raises(ModelNotFoundError, match=f"avllm model pull {name}"):
        resolve(name, pull=False, store=store)
    with pytest.raises(ModelNotFoundError, match="avllm model ls"):
        find_stored(name, store)


def test_unknown_name(store: ModelStore) -> None:
    with pytest.raises(ModelNotFoundError, match="Did you mean smollm2"):
        resolve("smollm", store=store)


def test_import_brings_no_network_client() -> None:
    code = (
        "import sys, avllm.models;"
        "print({'httpx2', 'huggingface_hub', 'filelock', 'platformdirs'} & set(sys.modules))"
    )
    paths = f"import sys; sys.path[:] = {sys.path!r};"
    done = subprocess.run(
        [sys.executable, "-c", paths + code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
