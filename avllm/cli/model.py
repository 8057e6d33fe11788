"""``avllm model``: list, pull, show and remove models."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import click

from avllm.cli.progress import pull_progress
from avllm.models import REGISTRY, ModelStore, StoredModel, find_registered, find_stored, resolve

PIPE_WIDTH = 1000
EPILOG = """\b
Examples:
  avllm model ls --all
  avllm model pull Qwen/Qwen3-1.7B-GGUF:Q8_0
  avllm model pull https://host/model.gguf#sha256=...
  avllm model show smollm2
  avllm model rm qwen3-1.7b
"""


@click.group(epilog=EPILOG)
def model() -> None:
    """List, pull, show and remove models."""


@model.command("ls")
@click.option("--all", "with_known", is_flag=True, help="Also the short names not pulled yet.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_models(with_known: bool, as_json: bool) -> None:
    """List the models on this machine."""
    store = ModelStore()
    models = store.models()
    if as_json:
        _print_json([_describe(store, stored) for stored in models])
        return
    rows = [_row(store, stored) for stored in models]
    if with_known:
        here = {stored.name for stored in models}
        rows += [(m.name, "-", str(m.source), "not pulled") for m in REGISTRY if m.name not in here]
    if rows:
        _print_table(("NAME", "SIZE", "SOURCE", "MODIFIED", "LICENCE"), rows)
    else:
        click.echo("No models here yet. Try: avllm model pull smollm2")


@model.command("pull")
@click.argument("name")
def pull_model(name: str) -> None:
    """Fetch NAME: a short name, owner/repo[:quant] of Hugging Face, or a URL.

    An interrupted pull goes on where it ended; checksums are verified.
    """
    with pull_progress() as on_progress:
        found = resolve(name, on_progress=on_progress)
    click.echo(f"{found.name}: {found.path}")


@model.command("rm")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def remove_models(names: tuple[str, ...]) -> None:
    """Delete pulled models, whole or cut short; never a file that was given by its path."""
    store = ModelStore()
    # All names are looked up before the first is removed: a typo removes nothing.
    for stored in [find_stored(name, store) for name in names]:
        freed = store.remove(stored)
        click.echo(f"removed {stored.name} ({_bytes(freed)})")


# What av_llm called it.
model.add_command(
    click.Command("del", hidden=True, params=remove_models.params, callback=remove_models.callback)
)


@model.command("show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--template", is_flag=True, help="Print the chat template alone.")
def show_model(name: str, as_json: bool, template: bool) -> None:
    """Show what the GGUF file of NAME says about itself."""
    from avllm.llama import Model

    found = resolve(name, pull=False)
    loaded = Model(found.path, vocab_only=True)
    if template:
        click.echo(loaded.chat_template_source or "")
        return
    facts = {
        "name": found.name,
        "path": str(found.path),
        "architecture": loaded.architecture,
        # From the metadata: llama.cpp reads no hyperparameters when it loads a vocabulary alone.
        "context_length": int(loaded.metadata.get(f"{loaded.architecture}.context_length", 0)),
        "size_bytes": found.path.stat().st_size,
        "chat_template": loaded.chat_template_source is not None,
    }
    if as_json:
        _print_json({**facts, "metadata": loaded.metadata})
        return
    _print_facts({key.replace("_", " "): str(value) for key, value in facts.items()})
    click.echo()
    _print_facts({key: _one_line(value) for key, value in loaded.metadata.items()})


def _describe(store: ModelStore, stored: StoredModel) -> dict[str, Any]:
    return {
        "name": stored.name,
        "key": stored.key,
        "source": str(stored.source),
        "size_bytes": store.size_on_disk(stored),
        "complete": stored.is_complete,
        "modified": stored.modified,
        "path": str(store.path(stored)) if stored.is_complete else None,
    }


def _row(store: ModelStore, stored: StoredModel) -> tuple[str, ...]:
    size = _bytes(store.size_on_disk(stored)) + ("" if stored.is_complete else " (incomplete)")
    modified = time.strftime("%Y-%m-%d %H:%M", time.localtime(stored.modified))
    return stored.name, size, str(stored.source), modified


def _print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*header, box=None, pad_edge=False)
    for row in rows:
        registered = find_registered(row[0])
        cells = (*row, registered.licence if registered else "")
        table.add_row(*(Text(cell) for cell in cells))  # Text: brackets in names are no markup
    # A pipe has no width: nothing may be cut or wrapped there.
    Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table)


def _print_facts(facts: dict[str, str]) -> None:
    width = max((len(key) for key in facts), default=0)
    for key, value in facts.items():
        click.echo(f"{key:{width}}  {value}")


def _print_json(value: object) -> None:
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(value)).decode())


def _one_line(text: str, limit: int = 100) -> str:
    flat = text.replace("\n", "\\n")
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def _bytes(count: int) -> str:
    from rich.filesize import decimal

    return decimal(count)
