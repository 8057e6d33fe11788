"""A pull in another process: killed in the middle, and raced by a second one."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

from avllm.models import ModelStore, resolve

from .file_server import FileServer

PATH = "/killed.gguf"
PULL = """
import sys
from pathlib import Path
from avllm.models import ModelStore, resolve
found = resolve(sys.argv[1], store=ModelStore(Path(sys.argv[2])), on_progress=lambda event:
    print(event.stage, flush=True))
"""


def start_pull(url: str, store: ModelStore) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", PULL, url, str(store.folder)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment)


def wait_for_bytes(store: ModelStore, size: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if any(part.stat().st_size >= size for part in store.folder.glob("*/*.part")):
            return
        time.sleep(0.02)
    raise AssertionError("the pull did not begin")


def test_killed_pull_resumes(server: FileServer, store: ModelStore, gguf: bytes) -> None:
    release = threading.Event()
    url = server.serve(PATH, gguf, faults=[("stall", release)])
    child = start_pull(url, store)
    try:
        wait_for_bytes(store, 1 << 20)
    finally:
        child.kill()
        child.communicate()
        release.set()
    assert not store.models()[0].is_complete
    assert resolve(url, store=store).path.read_bytes() == gguf
    assert server.ranges_asked()[-1] is not None


def test_two_processes_one_download(server: FileServer, store: ModelStore, gguf: bytes) -> None:
    release = threading.Event()
    server.before = lambda path: None if release.wait(20) else None
    url = server.serve(PATH, gguf)
    children = [start_pull(url, store) for _ in range(2)]
    try:
        # Whoever finds the lock taken says so first; then the other may go on.
        outputs = [child.stdout for child in children]
        watchers = [
            threading.Thread(target=lambda out=out: out and out.readline() and release.set())
            for out in outputs
        ]
        for watcher in watchers:
            watcher.start()
        for watcher in watchers:
            watcher.join(30)
        assert [child.wait(30) for child in children] == [0, 0]
    finally:
        release.set()
        for child in children:
            child.kill()
            child.communicate()
    assert len(server.received) == 1
    assert resolve(url, pull=False, store=store).path.read_bytes() == gguf
