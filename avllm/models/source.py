"""Where a model can come from: a Python package, a Hugging Face repository or a URL.

Plain data, as it is written in the registry and in the manifest of a pulled model. How each is
fetched is the business of `avllm.models.pull`. The `key` of a source names its folder in the store.
"""

from __future__ import annotations

import hashlib
import re
from urllib.parse import unquote, urlsplit

import msgspec


class PackageSource(msgspec.Struct, frozen=True, tag="package"):
    """A GGUF file shipped inside a wheel of the Python package index.

    Attributes:
        package: name of the distribution.
        version: exact version.
        wheel_sha256: SHA-256 of the wheel file, in hex.
        member: path of the GGUF inside the wheel.
        size: bytes of the GGUF.
        sha256: SHA-256 of the GGUF, in hex.
    """

    package: str
    version: str
    wheel_sha256: str
    member: str
    size: int
    sha256: str

    @property
    def key(self) -> str:
        """Folder name in the store."""
        return f"{self.package}-{self.version}"

    def __str__(self) -> str:
        return f"{self.package} {self.version}"


class HubSource(msgspec.Struct, frozen=True, tag="hub"):
    """A GGUF file, or a set of split ones, in a Hugging Face repository.

    Attributes:
        repo: ``owner/name``.
        variant: quantisation (``Q4_K_M``) or file name; None takes the preferred quantisation.
    """

    repo: str
    variant: str | None = None

    @property
    def key(self) -> str:
        """Folder name in the store; tells variants apart once `variant` is a file's name."""
        return str(self).replace("/", "--").replace(":", "--")

    def __str__(self) -> str:
        return f"{self.repo}:{self.variant}" if self.variant else self.repo


class UrlSource(msgspec.Struct, frozen=True, tag="url"):
    """A GGUF file behind a plain http or https address.

    Attributes:
        url: address, without the fragment.
        sha256: SHA-256 that the file must have, in hex, or None when nobody stated it.
    """

    url: str
    sha256: str | None = None

    @property
    def file_name(self) -> str:
        """Safe file name for what the address points to, ending in ``.gguf``."""
        last = unquote(urlsplit(self.url).path).rpartition("/")[2]
        stem = re.sub(r"[^\w.-]+", "-", last.removesuffix(".gguf"), flags=re.ASCII).strip(".-")
        return f"{stem or 'model'}.gguf"

    @property
    def key(self) -> str:
        """Folder name in the store: equal file names of different addresses stay apart."""
        digest = hashlib.sha256(self.url.encode()).hexdigest()[:10]
        return f"{self.file_name.removesuffix('.gguf')}--{digest}"

    def __str__(self) -> str:
        # A query may carry a signature, and the user part a password: neither is shown.
        return redact_url(self.url)


Source = PackageSource | HubSource | UrlSource


def redact_url(url: str) -> str:
    """Return `url` without its user, password, query and fragment, fit to be shown and logged."""
    scheme, _, rest = url.partition("://")
    location = rest.split("#", 1)[0].split("?", 1)[0]
    host, slash, path = location.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
