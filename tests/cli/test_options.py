"""Options and the fields that they stand for."""

from __future__ import annotations

import re

import click
import msgspec
import pytest

from avllm.cli import main
from avllm.cli.options import make_struct
from avllm.config import EngineConfig
from avllm.sampling_params import SamplingParams
from avllm.server.config import ServerConfig

from .conftest import Run

# Parameters that are the command's own business.
OWN = {"model", "api_key_file", "log_level", "prompt", "as_json", "system"}


def fields(*kinds: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    return {field.name: field for kind in kinds for field in msgspec.structs.fields(kind)}


@pytest.mark.parametrize("command", ["generate", "chat"])
def test_options_are_fields(command: str) -> None:
    names = {parameter.name for parameter in main.commands[command].params}
    assert names - OWN <= set(fields(EngineConfig, SamplingParams))


def test_options_of_serve_are_fields_with_true_defaults() -> None:
    known = fields(EngineConfig, ServerConfig)
    for parameter in main.commands["serve"].params:
        if parameter.name in OWN:
            continue
        assert isinstance(parameter, click.Option)
        assert parameter.name in known
        stated = re.search(r"\[default: (.*)\]", parameter.help or "")
        default = known[parameter.name].default
        if stated and default is not None:
            text = {True: "on", False: "off"}.get(default, default)
            assert stated[1] == (f"{text:g}" if isinstance(text, float) else str(text))


def test_only_given_options_reach_the_struct() -> None:
    params = make_struct(SamplingParams, {"temperature": 0.0, "top_k": None, "stop": ("a", "b")})
    assert params == SamplingParams(temperature=0.0, stop=("a", "b"))
    assert make_struct(EngineConfig, {"prefix_cache": False}).prefix_cache is False


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--temperature", "-1", "temperature must be between 0 and 100"),
        ("--top-p", "0", "top_p must be greater than 0"),
        ("--threads", "0", "num_threads must be between 1 and 1024"),
        ("-n", "65", "n must be between 1 and 64"),
        ("--seed", "x", "not a valid integer"),
    ],
)
def test_value_out_of_range_names_the_option(
    run: Run, option: str, value: str, message: str
) -> None:
    result = run("generate", "x", option, value)
    assert result.exit_code == 2
    assert f"Invalid value for '{option}'" in result.stderr
    assert message in result.stderr
