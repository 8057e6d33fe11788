"""Pulling from a plain URL, against a server that cuts, lies and redirects."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import NamedTuple

import pytest

from avllm.errors import DownloadError, ModelNotFoundError
from avllm.models import ModelStore, ProgressEvent, resolve

from .file_server import FileServer

PATH = "/models/tiny.gguf"
Events = list[ProgressEvent]
# Half of the file, then nothing for as long as one pull tries.
BROKEN = [("cut", 2_000_000)] + [("status", 500)] * 5


def stored_bytes(store: ModelStore, name: str) -> bytes:
    return resolve(name, pull=False, store=store).path.read_bytes()


def partial_files(store: ModelStore) -> list[Path]:
    return list(store.folder.glob("*/*.part*"))


def test_whole(server: FileServer, store: ModelStore, gguf: bytes, events: Events) -> None:
    url = server.serve(PATH, gguf)
    found = resolve(url, on_progress=events.append, store=store)
    assert found.name == "tiny"
    assert found.path.read_bytes() == gguf
    completed = [event.completed for event in events]
    assert completed == sorted(completed)
    assert (events[-1].file, events[-1].total) == ("tiny.gguf", len(gguf))
    assert completed[-1] == len(gguf)
    assert partial_files(store) == []


def test_second_resolve_asks_nobody(server: FileServer, store: ModelStore, gguf: bytes) -> None:
    url = server.serve(PATH, gguf)
    resolve(url, store=store)
    assert resolve(url, store=store) == resolve("tiny", pull=False, store=store)
    assert len(server.received) == 1


def test_cut_connection_is_resumed_within_one_pull(
    server: FileServer, store: ModelStore, gguf: bytes
) -> None:
    url = server.serve(PATH, gguf, faults=[("cut", 2_000_000), ("status", 503), ("cut", 10)])
    assert resolve(url, store=store).path.read_bytes() == gguf
    assert server.ranges_asked()[0] is None
    starts = [int(asked[len("bytes=") : -1]) for asked in server.ranges_asked()[1:] if asked]
    assert len(starts) == 3
    assert 0 < starts[0] <= starts[1] <= starts[2]


def test_server_without_ranges_starts_over(
    server: FileServer, store: ModelStore, gguf: bytes, gguf_sha256: str
) -> None:
    url = server.serve(PATH, gguf, ranges=False, faults=[("cut", 2_000_000)])
    assert resolve(f"{url}#sha256={gguf_sha256}", store=store).path.read_bytes() == gguf


def test_server_that_always_cuts_is_given_up(
    server: FileServer, store: ModelStore, gguf: bytes
) -> None:
    url = server.serve(PATH, gguf, ranges=False, faults=[("cut", 2_000_000)] * 50)
    with pytest.raises(DownloadError, match="bytes are kept; pull again"):
        resolve(url, store=store)
    assert len(server.received) <= 8


def test_next_pull_goes_on_where_the_last_one_ended(
    server: FileServer, store: ModelStore, gguf: bytes, events: Events
) -> None:
    url = server.serve(PATH, gguf, faults=list(BROKEN))
    with pytest.raises(DownloadError, match="500"):
        resolve(url, store=store)
    assert not store.models()[0].is_complete
    server.received.clear()
    resolve(url, on_progress=events.append, store=store)
    assert stored_bytes(store, url) == gguf
    (asked,) = server.ranges_asked()
    assert asked is not None
    assert events[0].stage == "verifying"
    assert min(e.completed for e in events if e.stage == "downloading") > 0


def test_changed_file_is_not_glued_to_the_old_one(
    server: FileServer, store: ModelStore, gguf: bytes
) -> None:
    url = server.serve(PATH, gguf, faults=list(BROKEN))
    with pytest.raises(DownloadError):
        resolve(url, store=store)
    changed = gguf[:4] + bytes(len(gguf) - 4)
    server.serve(PATH, changed, etag='"two"')
    assert resolve(url, store=store).path.read_bytes() == changed


def test_unversioned_file_is_not_resumed_without_checksum(
    server: FileServer, store: ModelStore, gguf: bytes
) -> None:
    url = server.serve(PATH, gguf, etag=None, faults=[("cut", 2_000_000)])
    assert resolve(url, store=store).path.read_bytes() == gguf
    assert server.ranges_asked()[-1] is None


def test_bad_bytes_of_an_earlier_pull_are_replaced(
    server: FileServer, store: ModelStore, gguf: bytes, gguf_sha256: str
) -> None:
    url = server.serve(PATH, gguf, faults=list(BROKEN))
    name = f"{url}#sha256={gguf_sha256}"
    with pytest.raises(DownloadError):
        resolve(name, store=store)
    (part,) = store.folder.glob("*/*.part")
    with part.open("r+b") as file:
        file.seek(1000)
        file.write(b"damaged")
    assert resolve(name, store=store).path.read_bytes() == gguf


@pytest.mark.parametrize("with_checksum", [True, False])
def test_arrived_whole_but_not_committed(
    server: FileServer, store: ModelStore, gguf: bytes, gguf_sha256: str, with_checksum: bool
) -> None:
    url = server.serve(PATH, gguf, faults=list(BROKEN))
    name = f"{url}#sha256={gguf_sha256}" if with_checksum else url
    with pytest.raises(DownloadError):
        resolve(name, store=store)
    (part,) = store.folder.glob("*/*.part")
    part.write_bytes(gguf)
    server.files[PATH].faults.clear()
    server.received.clear()
    assert resolve(name, store=store).path.read_bytes() == gguf
    # The server answers 416; without a checksum that proves nothing, so it is asked again.
    assert len(server.received) == (1 if with_checksum else 2)


def test_wrong_checksum_is_refused_and_deleted(
    server: FileServer, store: ModelStore, gguf: bytes, gguf_sha256: str
) -> None:
    url = server.serve(PATH, gguf)
    with pytest.raises(DownloadError, match=f"is {gguf_sha256}, expected {'0' * 64}"):
        resolve(f"{url}#sha256={'0' * 64}", store=store)
    assert list(store.folder.glob("*/*.gguf*")) == []


def test_stored_file_with_another_checksum_is_pulled_anew(
    server: FileServer, store: ModelStore, gguf: bytes, gguf_sha256: str
) -> None:
    url = server.serve(PATH, b"GGUF old version")
    resolve(url, store=store)
    server.serve(PATH, gguf, etag='"two"')
    assert resolve(f"{url}#sha256={gguf_sha256}", store=store).path.read_bytes() == gguf


def test_length_too_long_is_noticed(server: FileServer, store: ModelStore, gguf: bytes) -> None:
    url = server.serve(PATH, gguf, faults=[("claim", len(gguf) + 5)] * 50, ranges=False)
    with pytest.raises(DownloadError, match="could not be pulled"):
        resolve(url, store=store)
    assert not store.models()[0].is_complete


def test_length_too_short_fails_the_checksum(
    server: FileServer, store: ModelStore, gguf: bytes, gguf_sha256: str
) -> None:
    url = server.serve(PATH, gguf, faults=[("claim", 1_000_000)] * 50)
    with pytest.raises(DownloadError, match="is not the file it should be"):
        resolve(f"{url}#sha256={gguf_sha256}", store=store)


def test_web_page_instead_of_a_model(server: FileServer, store: ModelStore) -> None:
    url = server.serve(PATH, b"<!doctype html><title>Sign in</title>")
    with pytest.raises(DownloadError, match="not a GGUF file: it begins with b'<!doctype html>"):
        resolve(url, store=store)
    assert not store.models()[0].is_complete


def test_empty_answer(server: FileServer, store: ModelStore) -> None:
    url = server.serve(PATH, b"")
    with pytest.raises(DownloadError, match="is empty"):
        resolve(url, store=store)


class Refusal(NamedTuple):
    """A status that means no, the error it becomes and what that says."""

    status: int
    error: type[Exception]
    message: str


@pytest.mark.parametrize(
    "refusal",
    [
        Refusal(404, ModelNotFoundError, "there is nothing at"),
        Refusal(403, DownloadError, "HF_TOKEN"),
        Refusal(400, DownloadError, "answers 400"),
    ],
)
def test_refusals_are_not_repeated(server: FileServer, store: ModelStore, refusal: Refusal) -> None:
    url = server.serve(PATH, faults=[("status", refusal.status)] * 9)
    with pytest.raises(refusal.error, match=refusal.message):
        resolve(url + "?token=secret", store=store)
    assert len(server.received) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_passing_faults_are_waited_out(
    server: FileServer, store: ModelStore, gguf: bytes, status: int
) -> None:
    url = server.serve(PATH, gguf, faults=[("status", status)] * 2)
    assert resolve(url, store=store).path.read_bytes() == gguf


def test_redirect(server: FileServer, cdn: FileServer, store: ModelStore, gguf: bytes) -> None:
    url = server.serve(PATH, redirect=cdn.serve("/blob", gguf, faults=[("cut", 2_000_000)]))
    assert resolve(url, store=store).path.name == "tiny.gguf"
    assert stored_bytes(store, url) == gguf


def test_redirect_loop_ends(server: FileServer, store: ModelStore) -> None:
    url = server.serve(PATH, redirect=PATH)
    with pytest.raises(DownloadError, match="redirect"):
        resolve(url, store=store)


def test_nobody_listens(store: ModelStore) -> None:
    with pytest.raises(DownloadError, match="could not be pulled"):
        resolve("http://127.0.0.1:1/x.gguf", store=store)


def test_secrets_do_not_reach_the_message(server: FileServer, store: ModelStore) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        resolve(f"{server.url}/x.gguf?signature=secret", store=store)
    assert "secret" not in str(caught.value)


def test_full_disk_is_told_before_the_download(
    server: FileServer, store: ModelStore, gguf: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=1_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    url = server.serve(PATH, gguf)
    with pytest.raises(DownloadError, match=r"needs 3,\d+,\d+ more bytes.* has 1,000 free"):
        resolve(url, store=store)


def test_unwritable_store(tmp_path: Path, server: FileServer, gguf: bytes) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DownloadError, match="AVLLM_CACHE_DIR"):
        resolve(server.serve(PATH, gguf), store=ModelStore(tmp_path / "file" / "models"))


def test_callback_can_end_a_pull(server: FileServer, store: ModelStore, gguf: bytes) -> None:
    def stop(event: ProgressEvent) -> None:
        if event.completed:
            raise KeyboardInterrupt

    url = server.serve(PATH, gguf)
    with pytest.raises(KeyboardInterrupt):
        resolve(url, on_progress=stop, store=store)
    assert resolve(url, store=store).path.read_bytes() == gguf
    assert server.ranges_asked()[-1] is not None


def test_many_pullers_one_download(server: FileServer, store: ModelStore, gguf: bytes) -> None:
    release = threading.Event()
    server.before = lambda path: release.wait(10) and None  # hold the first until others wait
    url = server.serve(PATH, gguf)
    events: Events = []
    paths: list[Path] = []

    def pull() -> None:
        def note(event: ProgressEvent) -> None:
            events.append(event)
            if sum(e.stage == "waiting" for e in events) == 3:
                release.set()

        paths.append(resolve(url, on_progress=note, store=store).path)

    threads = [threading.Thread(target=pull) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(paths) == 4
    assert len(set(paths)) == 1
    assert len(server.received) == 1
