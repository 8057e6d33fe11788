"""Options that stand for fields of a configuration Struct, and the way back.

An option carries its field's name as parameter name. So a command passes its parameters on
unnamed, defaults and ranges stay with the Struct, and an error that names a field names the option.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click
import msgspec

from avllm.config import EngineConfig
from avllm.errors import ConfigurationError, InvalidRequestError
from avllm.sampling_params import SamplingParams

Struct = TypeVar("Struct", bound=msgspec.Struct)
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def make_struct(kind: type[Struct], values: Mapping[str, Any]) -> Struct:
    """Make a `kind` from the options that were given; the others keep the Struct's defaults.

    Raises:
        click.BadParameter: a value is out of range; names the option.
    """
    fields = kind.__struct_fields__
    given = {name: values[name] for name in fields if values.get(name) not in (None, ())}
    try:
        return kind(**given)
    except (ConfigurationError, InvalidRequestError) as error:
        raise _bad_parameter(error) from error


def field_option(
    kind: type[msgspec.Struct], flag: str, field: str, *, text: str, **settings: Any
) -> Decorator:
    """Return a click option `flag` for `field` of `kind`.

    Args:
        kind: the Struct.
        flag: the option, with its dashes.
        field: name of the field.
        text: help, one sentence; the default is added to it unless it is "nothing".
        **settings: passed on to `click.option`.
    """
    default = next(f.default for f in msgspec.structs.fields(kind) if f.name == field)
    if default not in (None, ()):
        shown = f"{default:g}" if isinstance(default, float) else default
        text = f"{text}  [default: {shown}]"
    return click.option(flag, field, default=None, help=text, **settings)


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of EngineConfig that matter to every command that loads a model."""
    return _apply(
        command,
        field_option(
            EngineConfig, "--ctx-size", "context_length", type=int, metavar="TOKENS",
            text="Size of the KV cache that all requests share.  [default: from the model]",
        ),
        field_option(
            EngineConfig, "--threads", "num_threads", type=int, metavar="N",
            text="Threads that compute.  [default: every core]",
        ),
        field_option(
            EngineConfig, "--gpu-layers", "num_gpu_layers", type=int, metavar="N",
            text="Layers to put on a GPU, where avllm was built with one; -1 is all.",
        ),
    )  # fmt: skip


def sampling_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of SamplingParams that a person sets by hand."""
    numbers: list[tuple[str, str, Any, str]] = [
        ("--temperature", "temperature", float, "0 always takes the likeliest token."),
        ("--top-k", "top_k", int, "Keep the k likeliest tokens; 0 keeps all."),
        ("--top-p", "top_p", float, "Keep the likeliest tokens that reach this probability."),
        ("--min-p", "min_p", float, "Drop tokens less likely than this share of the likeliest."),
        ("--repeat-penalty", "repeat_penalty", float, "Above 1 discourages repetition."),
        ("--seed", "seed", int, "Makes sampling repeatable."),
    ]
    decorators = [
        field_option(SamplingParams, flag, field, type=kind, text=text)
        for flag, field, kind, text in numbers
    ]
    stop = field_option(
        SamplingParams, "--stop", "stop", multiple=True, metavar="TEXT",
        text="End the text before TEXT; may be given several times.",
    )  # fmt: skip
    return _apply(command, *decorators, stop)


def _apply(command: Callable[..., Any], *decorators: Decorator) -> Callable[..., Any]:
    # click collects options bottom up; reversed keeps the order of --help as written here.
    for decorator in reversed(decorators):
        command = decorator(command)
    return command


def _bad_parameter(error: ConfigurationError | InvalidRequestError) -> click.BadParameter:
    context = click.get_current_context()
    found = [p for p in context.command.params if p.name == error.param]
    return click.BadParameter(str(error), ctx=context, param=found[0] if found else None)
