"""Pulling from a Hugging Face repository, against a hub on loopback."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import pytest

from avllm.errors import DownloadError, ModelNotFoundError
from avllm.models import ModelStore, find_stored, resolve

from .file_server import FileServer

REPO = "owner/Tiny-GGUF"
COMMIT = "c0ffee" + "0" * 34


def publish(hub: FileServer, cdn: FileServer, files: Mapping[str, bytes]) -> None:
    """Make `hub` list `files` under REPO; the bytes come from `cdn`, as those of the real hub."""
    siblings = []
    for name, body in files.items():
        digest = hashlib.sha256(body).hexdigest()
        lfs = {"size": len(body), "sha256": digest, "pointerSize": 130}
        siblings.append({"rfilename": name, "size": len(body), "blobId": "0", "lfs": lfs})
        blob = cdn.serve(f"/blobs/{digest}", body)
        hub.serve(f"/{REPO}/resolve/{COMMIT}/{name}", redirect=blob + "?signature=secret")
    info = {"id": REPO, "modelId": REPO, "sha": COMMIT, "siblings": siblings}
    hub.serve_json(f"/api/models/{REPO}", info)


@pytest.fixture
def hub(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> FileServer:
    """The endpoint that huggingface_hub asks; HF_ENDPOINT is read when it is first imported."""
    constants = pytest.importorskip("huggingface_hub.constants")
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    return server


@pytest.fixture
def published(hub: FileServer, cdn: FileServer, gguf: bytes) -> dict[str, bytes]:
    """Three variants, one of them split, in REPO."""
    files = {
        "README.md": b"# tiny",
        "tiny-Q4_0.gguf": gguf,
        "tiny-Q8_0.gguf": gguf + b"8",
        "F16/tiny-F16-00001-of-00002.gguf": gguf + b"first",
        "F16/tiny-F16-00002-of-00002.gguf": gguf + b"second",
    }
    publish(hub, cdn, files)
    return files


def test_preferred_quantisation(published: dict[str, bytes], store: ModelStore) -> None:
    found = resolve(REPO, store=store)
    assert (found.name, found.path.name) == (REPO, "tiny-Q4_0.gguf")
    assert found.path.read_bytes() == published["tiny-Q4_0.gguf"]


def test_named_quantisation_then_offline(
    published: dict[str, bytes], hub: FileServer, store: ModelStore
) -> None:
    assert resolve(f"{REPO}:q8_0", store=store).path.name == "tiny-Q8_0.gguf"
    hub.received.clear()
    for name in (f"{REPO}:Q8_0", f"{REPO}:tiny-Q8_0.gguf", REPO):
        assert resolve(name, store=store).path.name == "tiny-Q8_0.gguf"
    assert hub.received == []
    with pytest.raises(ModelNotFoundError, match="avllm model pull owner/Tiny-GGUF:Q4_0"):
        resolve(f"{REPO}:Q4_0", pull=False, store=store)


def test_token_stays_on_the_hub(
    published: dict[str, bytes], hub: FileServer, cdn: FileServer, store: ModelStore
) -> None:
    resolve(REPO, store=store)
    assert all(r.headers["authorization"] == "Bearer hf_secret" for r in hub.received)
    assert all("authorization" not in r.headers for r in cdn.received)


def test_split_model(published: dict[str, bytes], store: ModelStore) -> None:
    found = resolve(f"{REPO}:F16", store=store)
    assert found.path.name == "tiny-F16-00001-of-00002.gguf"
    second = found.path.with_name("tiny-F16-00002-of-00002.gguf")
    assert second.read_bytes() == published["F16/tiny-F16-00002-of-00002.gguf"]
    assert resolve(f"{REPO}:f16", pull=False, store=store).path == found.path


def test_arrived_part_of_a_split_model_is_kept(
    published: dict[str, bytes], cdn: FileServer, store: ModelStore
) -> None:
    second = hashlib.sha256(published["F16/tiny-F16-00002-of-00002.gguf"]).hexdigest()
    blob = cdn.files.pop(f"/blobs/{second}")
    with pytest.raises(ModelNotFoundError):
        resolve(f"{REPO}:F16", store=store)
    cut_short = find_stored(f"{REPO}:F16", store)
    assert not cut_short.is_complete
    assert store.size_on_disk(cut_short) > 0
    cdn.files[f"/blobs/{second}"] = blob
    cdn.received.clear()
    resolve(f"{REPO}:F16", store=store)
    assert [request.path for request in cdn.received] == [f"/blobs/{second}"]


def test_cut_connection_resumes_at_the_cdn(
    published: dict[str, bytes], cdn: FileServer, gguf_sha256: str, store: ModelStore
) -> None:
    cdn.files[f"/blobs/{gguf_sha256}"].faults = [("cut", 1_000_000)]
    assert resolve(REPO, store=store).path.read_bytes() == published["tiny-Q4_0.gguf"]
    assert cdn.ranges_asked()[-1] is not None


def test_bytes_that_are_not_what_the_hub_states(
    published: dict[str, bytes], cdn: FileServer, gguf: bytes, gguf_sha256: str, store: ModelStore
) -> None:
    cdn.files[f"/blobs/{gguf_sha256}"].body = gguf[:-1] + b"!"
    with pytest.raises(DownloadError, match="SHA-256"):
        resolve(REPO, store=store)
    cdn.files[f"/blobs/{gguf_sha256}"].body = gguf + b"longer"
    with pytest.raises(DownloadError, match=r"should have 3,158,073 bytes.*offers 3,158,079"):
        resolve(REPO, store=store)


def test_unknown_quantisation_lists_the_choices(
    published: dict[str, bytes], store: ModelStore
) -> None:
    with pytest.raises(ModelNotFoundError, match="F16/tiny-F16, tiny-Q4_0, tiny-Q8_0"):
        resolve(f"{REPO}:Q2_K", store=store)
    assert store.models() == []


def test_two_pulled_variants_must_be_told_apart_to_remove_one(
    published: dict[str, bytes], store: ModelStore
) -> None:
    resolve(f"{REPO}:Q4_0", store=store)
    resolve(f"{REPO}:Q8_0", store=store)
    with pytest.raises(ModelNotFoundError, match="several pulled models"):
        find_stored(REPO, store)
    assert find_stored(f"{REPO}:Q8_0", store).files[0].name == "tiny-Q8_0.gguf"


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "set HF_TOKEN"), (404, "no repository"), (500, "could not be asked")],
)
def test_hub_refuses(hub: FileServer, store: ModelStore, status: int, message: str) -> None:
    hub.serve(f"/api/models/{REPO}", faults=[("status", status)] * 20)
    with pytest.raises((ModelNotFoundError, DownloadError), match=message):
        resolve(REPO, store=store)


def test_short_name_of_the_registry_is_a_repository(hub: FileServer, store: ModelStore) -> None:
    with pytest.raises(ModelNotFoundError, match="Qwen/Qwen3-1.7B-GGUF"):
        resolve("qween3-1.7b", store=store)
    assert hub.received[0].path == "/api/models/Qwen/Qwen3-1.7B-GGUF"
