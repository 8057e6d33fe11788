"""Download one file over HTTP: resumed, size-checked, verified.

Knows servers as they are: connections break, ranges are ignored, files change between two
attempts, proxies answer with an HTML page. httpx2 is used because huggingface_hub brings it
already; it honours the proxy variables, trusts the system's certificates and drops the
Authorization header when a redirect leaves the host.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import httpx2
import msgspec

from avllm.errors import DownloadError, ModelNotFoundError
from avllm.models.progress import ProgressCallback, ProgressEvent
from avllm.models.pull.checksum import check_digest, hash_file
from avllm.models.pull.partial_file import Fingerprint, PartialFile
from avllm.models.source import redact_url
from avllm.models.store import StoredFile

GGUF_MAGIC = b"GGUF"
CHUNK_BYTES = 1 << 17
CONNECT_SECONDS = 10.0
READ_SECONDS = 30.0
# Pauses between attempts that brought nothing new, in seconds; after the last one we give up.
RETRY_DELAYS = (0.5, 1.0, 2.0, 4.0, 8.0)
_OK, _PARTIAL_CONTENT, _RANGE_NOT_SATISFIABLE = 200, 206, 416
# Statuses that say "later" rather than "no": timeout, too early, too many, and every 5xx.
_LATER = frozenset({408, 425, 429})
_CONTENT_RANGE = re.compile(r"^bytes (?:(?P<start>\d+)-\d+|\*)/(?P<total>\d+|\*)$")


class RemoteFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file to download.

    Attributes:
        url: http or https address.
        name: what it is called in the store.
        size: bytes that it must have, or None when unknown.
        sha256: SHA-256 that it must have, in hex, or None when unknown.
        headers: sent with the request to `url`; Authorization stays on its host.
    """

    url: str
    name: str
    size: int | None = None
    sha256: str | None = None
    headers: Mapping[str, str] = {}


class _TryLaterError(Exception):
    """An attempt ended early in a way that the next one may not."""


def download_file(remote: RemoteFile, folder: Path, on_progress: ProgressCallback) -> StoredFile:
    """Download `remote` into `folder`, going on from what an earlier attempt left there.

    Raises:
        DownloadError: it could not be had whole, or is not what it should be.
        ModelNotFoundError: there is nothing at this address.
    """
    destination = folder / remote.name
    if stored := _arrived(remote, destination, on_progress):
        return stored
    with _client() as client, PartialFile(destination, on_progress) as partial:
        resumed = partial.size > 0
        _receive(client, remote, partial, on_progress)
        if resumed and remote.sha256 not in (None, partial.sha256):
            # The bytes of the earlier attempt are to blame as much as today's: once more, whole.
            partial.restart(Fingerprint(remote.url))
            _receive(client, remote, partial, on_progress)
        _verify(remote, partial)
        partial.commit()
        return StoredFile(remote.name, partial.size, partial.sha256)


def _arrived(
    remote: RemoteFile, destination: Path, on_progress: ProgressCallback
) -> StoredFile | None:
    """Return the part of a split model that is here already when an earlier pull was cut short."""
    if remote.sha256 is None or not destination.is_file():
        return None
    digest = hash_file(destination, remote.name, on_progress).hexdigest()
    if digest != remote.sha256:
        return None
    return StoredFile(remote.name, destination.stat().st_size, digest)


def _client() -> httpx2.Client:
    timeout = httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
    # Ranges count bytes of the file itself, so no compression on the way.
    headers = {"User-Agent": "avllm", "Accept-Encoding": "identity"}
    return httpx2.Client(timeout=timeout, follow_redirects=True, headers=headers)


def _receive(
    client: httpx2.Client, remote: RemoteFile, partial: PartialFile, on_progress: ProgressCallback
) -> None:
    """Receive until every byte is there; gives up after a run of attempts without progress."""
    furthest = partial.size
    failures = 0
    while True:
        try:
            _attempt(client, remote, partial, on_progress)
            return
        except (httpx2.TransportError, _TryLaterError) as error:
            problem = str(error) or type(error).__name__
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise DownloadError(f"{redact_url(remote.url)} cannot be pulled: {error}") from error
        failures = 0 if partial.size > furthest else failures
        furthest = max(furthest, partial.size)
        if failures == len(RETRY_DELAYS):
            raise DownloadError(
                f"{remote.name} could not be pulled from {redact_url(remote.url)}: {problem}. "
                f"{partial.size:,} bytes are kept; pull again to go on from there."
            )
        time.sleep(RETRY_DELAYS[failures])
        failures += 1


def _attempt(
    client: httpx2.Client, remote: RemoteFile, partial: PartialFile, on_progress: ProgressCallback
) -> None:
    """Make one request and append what it brings; returns when the file is whole."""
    headers = dict(remote.headers)
    if partial.size:
        headers["Range"] = f"bytes={partial.size}-"
    with client.stream("GET", remote.url, headers=headers) as response:
        total = _begin(remote, partial, response)
        if partial.size == total:
            return
        _check_space(partial, total)
        on_progress(ProgressEvent(remote.name, partial.size, total))
        for chunk in response.iter_raw(CHUNK_BYTES):
            if not partial.size:
                _check_magic(remote, chunk)
            partial.append(chunk)
            on_progress(ProgressEvent(remote.name, partial.size, total))
    if total is not None and partial.size != total:
        raise _TryLaterError(f"{partial.size:,} of {total:,} bytes came")


def _begin(remote: RemoteFile, partial: PartialFile, response: httpx2.Response) -> int | None:
    """Read the status and headers; leave `partial` where the body goes on; return the total."""
    _check_status(remote, response)
    content_range = _CONTENT_RANGE.match(response.headers.get("content-range", ""))
    total = _total(response, content_range)
    if response.status_code == _OK:
        partial.restart(Fingerprint(remote.url, _validator(response), total))
    elif response.status_code == _RANGE_NOT_SATISFIABLE:
        if total != partial.size or not _same_version(remote, partial, response, total):
            partial.restart(Fingerprint(remote.url))
            raise _TryLaterError("the server has fewer bytes than are here already")
    elif (
        content_range is None
        or content_range["start"] != str(partial.size)
        or not _same_version(remote, partial, response, total)
    ):
        partial.restart(Fingerprint(remote.url))
        raise _TryLaterError("the file has changed since the last attempt")
    if remote.size is not None and total is not None and total != remote.size:
        raise DownloadError(
            f"{remote.name} should have {remote.size:,} bytes; {redact_url(remote.url)} offers "
            f"{total:,}. The file has changed or the server is wrong: try again later."
        )
    return total if total is not None else remote.size


def _check_status(remote: RemoteFile, response: httpx2.Response) -> None:
    status = response.status_code
    where = redact_url(remote.url)
    if status in (_OK, _PARTIAL_CONTENT, _RANGE_NOT_SATISFIABLE):
        return
    if status in _LATER or status >= 500:
        raise _TryLaterError(f"the server answers {status} {response.reason_phrase}".rstrip())
    if status in (404, 410):
        raise ModelNotFoundError(f"there is nothing at {where} (status {status}).")
    if status in (401, 403):
        raise DownloadError(
            f"{where} refuses access (status {status}). For Hugging Face set HF_TOKEN to a token "
            "that may read it."
        )
    raise DownloadError(f"{where} answers {status} {response.reason_phrase}".rstrip() + ".")


def _total(response: httpx2.Response, content_range: re.Match[str] | None) -> int | None:
    if content_range is not None:
        return None if content_range["total"] == "*" else int(content_range["total"])
    length = response.headers.get("content-length", "")
    return int(length) if response.status_code == _OK and length.isdigit() else None


def _validator(response: httpx2.Response) -> str | None:
    return response.headers.get("etag") or response.headers.get("last-modified")


def _same_version(
    remote: RemoteFile, partial: PartialFile, response: httpx2.Response, total: int | None
) -> bool:
    """Tell whether the bytes that are here and those that come belong to one file."""
    known = partial.fingerprint
    if known is None or known.url != remote.url or known.size != total:
        return False
    # With a checksum the end result decides; mirrors may each have an ETag of their own.
    return remote.sha256 is not None or known.validator == _validator(response) is not None


def _check_space(partial: PartialFile, total: int | None) -> None:
    free = shutil.disk_usage(partial.destination.parent).free
    if total is not None and total - partial.size > free:
        raise DownloadError(
            f"{partial.destination.name} needs {total - partial.size:,} more bytes; "
            f"{partial.destination.parent} has {free:,} free. Remove a model (avllm model rm) or "
            "set AVLLM_CACHE_DIR to a folder on a larger disk."
        )


def _check_magic(remote: RemoteFile, chunk: bytes) -> None:
    if not chunk.startswith(GGUF_MAGIC):
        raise DownloadError(
            f"what {redact_url(remote.url)} sends is not a GGUF file: it begins with "
            f"{chunk[:16]!r}. Give the address of the file itself, not of a page about it."
        )


def _verify(remote: RemoteFile, partial: PartialFile) -> None:
    try:
        if not partial.size:
            raise DownloadError(f"{redact_url(remote.url)} is empty: there is no model to pull.")
        if remote.sha256 is not None:
            check_digest(remote.name, partial.sha256, remote.sha256)
    except DownloadError:
        partial.discard()
        raise
