"""ModelReference: what a name that a user typed stands for. No disk, no network."""

from __future__ import annotations

import difflib
import re
from urllib.parse import urldefrag, urlsplit

import msgspec

from avllm.errors import ModelNotFoundError
from avllm.models.registry import find_registered, registered_names
from avllm.models.source import HubSource, Source, UrlSource

# Owner and name follow the rules of the Hugging Face hub; the variant may be a path inside.
_HUB_NAME = re.compile(
    r"^(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?::(?P<variant>[\w./-]+))?$", re.ASCII
)
_HUB_PREFIXES = ("hf.co/", "huggingface.co/")
_SHA256 = re.compile(r"^[0-9a-f]{64}$")


class ModelReference(msgspec.Struct, frozen=True):
    """A model that can be pulled.

    Attributes:
        name: what to call the model: its short name, its repository and variant, or the stem of
            the file behind a URL.
        source: where it comes from.
    """

    name: str
    source: Source


def parse_reference(name: str) -> ModelReference:
    """Return what `name` stands for: a short name, ``owner/repo[:variant]`` or a URL.

    Raises:
        ModelNotFoundError: it has none of these forms; suggests names that are near.
    """
    if registered := find_registered(name):
        return ModelReference(registered.name, registered.source)
    if name.lower().startswith(("http://", "https://")):
        return _parse_url(name)
    hub_name = name
    for prefix in _HUB_PREFIXES:
        hub_name = hub_name.removeprefix(prefix)
    if match := _HUB_NAME.match(hub_name):
        return ModelReference(hub_name, HubSource(match["repo"], match["variant"]))
    raise _unknown(name)


def _parse_url(name: str) -> ModelReference:
    url, fragment = urldefrag(name)
    if not urlsplit(url).hostname:
        raise ModelNotFoundError(f"{name!r} names no host. Write https://HOST/PATH.gguf.")
    if not fragment:
        return _url_reference(UrlSource(url))
    digest = fragment.removeprefix("sha256=").lower()
    if not _SHA256.match(digest):
        raise ModelNotFoundError(
            f"the checksum in {name!r} is not a SHA-256. Write {url}#sha256= and 64 hex digits."
        )
    return _url_reference(UrlSource(url, digest))


def _url_reference(source: UrlSource) -> ModelReference:
    return ModelReference(source.file_name.removesuffix(".gguf"), source)


def _unknown(name: str) -> ModelNotFoundError:
    near = difflib.get_close_matches(name.lower(), registered_names(), n=3, cutoff=0.5)
    advice = f" Did you mean {' or '.join(near)}?" if near else ""
    return ModelNotFoundError(
        f"no model is called {name!r}.{advice} Give a short name (avllm model ls --all), the path "
        "of a .gguf file, owner/repo[:quant] of Hugging Face, or a URL."
    )
