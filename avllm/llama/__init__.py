"""llama.cpp for Python: models, vocabularies, contexts, batches, samplers, chat templates.

The only place of avllm that knows C. Nothing in here knows of requests or scheduling.
"""

from __future__ import annotations

try:
    from avllm.llama.backend import devices, initialise, system_info
except ModuleNotFoundError as error:
    if error.name is None or not error.name.startswith("avllm.llama."):
        raise
    raise ImportError(
        "avllm's compiled modules are missing: this is an unbuilt source tree. Run `make build` "
        "in it, or leave the folder if avllm is installed elsewhere."
    ) from error

from avllm.llama.batch import Batch
from avllm.llama.chat_template import ChatTemplate
from avllm.llama.context import MAX_SEQ_IDS, Context, DecodeStatus
from avllm.llama.model import Model
from avllm.llama.sampler import Sampler, sample_rows
from avllm.llama.vocab import Vocab

__all__ = [
    "MAX_SEQ_IDS",
    "Batch",
    "ChatTemplate",
    "Context",
    "DecodeStatus",
    "Model",
    "Sampler",
    "Vocab",
    "devices",
    "initialise",
    "sample_rows",
    "system_info",
]
