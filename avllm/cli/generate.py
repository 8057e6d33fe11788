"""``avllm generate``: one completion, streamed to stdout."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from avllm.cli.loading import opened_engine
from avllm.cli.options import engine_options, field_option, make_struct, sampling_options
from avllm.config import EngineConfig
from avllm.models import DEFAULT_MODEL
from avllm.sampling_params import SamplingParams

if TYPE_CHECKING:
    from avllm import Engine

DEFAULT_MAX_TOKENS = 256
EPILOG = """\b
Examples:
  avllm generate "The quick brown fox jumps" --temperature 0 --max-tokens 8
  cat letter.txt | avllm generate - --model ./model.gguf
  avllm generate "A name for a cat:" -n 3 --json
"""


@click.command(epilog=EPILOG, short_help="Continue a prompt, once.")
@click.argument("prompt", required=False)
@click.option("-m", "--model", default=DEFAULT_MODEL, show_default=True, help="Model to use.")
@click.option(
    "--max-tokens",
    type=int,
    default=DEFAULT_MAX_TOKENS,
    show_default=True,
    help="Longest completion, in tokens.",
)
@sampling_options
@field_option(SamplingParams, "-n", "n", type=int, text="Completions to sample from the prompt.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole result as JSON.")
@engine_options
def generate(prompt: str | None, model: str, as_json: bool, **options: Any) -> None:
    """Continue PROMPT; without it, or with -, the prompt is read from stdin."""
    params = make_struct(SamplingParams, options)
    config = make_struct(EngineConfig, options)
    text = _read_prompt(prompt)
    with opened_engine(model, config) as engine:
        if as_json:
            _print_json(engine, text, params)
        elif params.n > 1:
            _print_each(engine, text, params)
        else:
            _print_stream(engine, text, params)


def _read_prompt(prompt: str | None) -> str:
    if prompt is not None and prompt != "-":
        return prompt
    if prompt is None and sys.stdin.isatty():
        raise click.UsageError("Give a PROMPT, or pipe one in.")
    # The last line break of a file is the editor's, not the prompt's.
    return sys.stdin.read().removesuffix("\n")


def _print_stream(engine: Engine, prompt: str, params: SamplingParams) -> None:
    for delta in engine.stream(prompt, params):
        click.echo(delta.text, nl=False)
    click.echo()


def _print_each(engine: Engine, prompt: str, params: SamplingParams) -> None:
    for output in engine.generate(prompt, params).outputs:
        click.echo(f"--- {output.index + 1} of {params.n} ---")
        click.echo(output.text)


def _print_json(engine: Engine, prompt: str, params: SamplingParams) -> None:
    import msgspec

    result = engine.generate(prompt, params)
    click.echo(msgspec.json.format(msgspec.json.encode(result)).decode())
