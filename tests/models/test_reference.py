"""What a typed name stands for."""

from __future__ import annotations

import pytest

from avllm.errors import ModelNotFoundError
from avllm.models.reference import parse_reference
from avllm.models.registry import REGISTRY, registered_names
from avllm.models.source import HubSource, PackageSource, UrlSource

SHA256 = "ab" * 32


def test_short_names_are_unique_and_parse_to_their_source() -> None:
    names = registered_names()
    assert len(set(names)) == len(names)
    for model in REGISTRY:
        for name in (model.name, *model.aliases, model.name.upper()):
            assert parse_reference(name) == parse_reference(model.name)
            assert parse_reference(name).source == model.source


def test_default_is_a_package() -> None:
    assert isinstance(parse_reference("smollm2").source, PackageSource)


def test_misspelled_names_of_av_llm() -> None:
    assert parse_reference("qween3-1.7b").name == "qwen3-1.7b"


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("Qwen/Qwen3-1.7B-GGUF", HubSource("Qwen/Qwen3-1.7B-GGUF")),
        ("a/b:Q4_K_M", HubSource("a/b", "Q4_K_M")),
        ("hf.co/a/b:sub/x-Q4_0.gguf", HubSource("a/b", "sub/x-Q4_0.gguf")),
        ("https://h/x.gguf?download=true", UrlSource("https://h/x.gguf?download=true")),
        (f"https://h/x.gguf#sha256={SHA256.upper()}", UrlSource("https://h/x.gguf", SHA256)),
    ],
)
def test_forms(name: str, source: object) -> None:
    assert parse_reference(name).source == source


@pytest.mark.parametrize("name", ["", "smolm2", "a/b/c", "../x", "a/b:", "-rf", "a b", "é/b"])
def test_unknown_forms(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match="no model is called"):
        parse_reference(name)


def test_near_name_is_suggested() -> None:
    with pytest.raises(ModelNotFoundError, match=r"Did you mean smollm2"):
        parse_reference("smolm2")


@pytest.mark.parametrize(
    ("name", "message"),
    [("https:///x.gguf", "names no host"), ("https://h/x.gguf#sha256=12", "not a SHA-256")],
)
def test_bad_url(name: str, message: str) -> None:
    with pytest.raises(ModelNotFoundError, match=message):
        parse_reference(name)


@pytest.mark.parametrize(
    ("url", "file_name"),
    [
        ("https://h/a/Tiny%20Model.gguf?x=1", "Tiny-Model.gguf"),
        ("https://h/", "model.gguf"),
        ("https://h/..%2F..%2Fetc%2Fpasswd", "passwd.gguf"),
        ("https://h/.gguf", "model.gguf"),
    ],
)
def test_file_name_of_url_is_safe(url: str, file_name: str) -> None:
    assert UrlSource(url).file_name == file_name


def test_secrets_in_an_url_are_not_shown() -> None:
    source = UrlSource("https://user:pass@h:8000/x.gguf?signature=secret")
    assert str(source) == "https://h:8000/x.gguf"
    assert "secret" not in source.key
