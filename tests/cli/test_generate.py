"""avllm generate, on the fake engine."""

from __future__ import annotations

import json

from .conftest import Run
from .fake_engine import FakeEngine


def test_streams_to_stdout(run: Run, engines: list[FakeEngine], fake_model: str) -> None:
    result = run("generate", "the quick fox", "--model", fake_model)
    assert result.exit_code == 0, result.output
    assert result.stdout == "THE QUICK FOX\n"
    assert engines[0].closed


def test_prompt_from_stdin(run: Run, engines: list[FakeEngine], fake_model: str) -> None:
    for arguments in (["-"], []):
        result = run("generate", *arguments, "-m", fake_model, stdin="from a pipe\n")
        assert result.stdout == "FROM A PIPE\n"


def test_options_reach_the_engine(run: Run, engines: list[FakeEngine], fake_model: str) -> None:
    options = "--temperature 0 --max-tokens 8 --top-k 3 --top-p 0.5 --seed 7 --stop END --stop ."
    result = run("generate", "x", "-m", fake_model, *options.split(), "--ctx-size", "512")
    assert result.exit_code == 0, result.output
    (params,) = engines[0].params
    assert (params.temperature, params.max_tokens, params.top_k, params.top_p) == (0, 8, 3, 0.5)
    assert (params.seed, params.stop) == (7, ("END", "."))
    assert engines[0].config is not None
    assert engines[0].config.context_length == 512


def test_max_tokens_is_bounded_by_default(
    run: Run, engines: list[FakeEngine], fake_model: str
) -> None:
    run("generate", "x", "-m", fake_model)
    assert engines[0].params[0].max_tokens == 256


def test_several(run: Run, engines: list[FakeEngine], fake_model: str) -> None:
    result = run("generate", "cat", "-n", "2", "-m", fake_model)
    assert result.stdout == "--- 1 of 2 ---\nCAT 0\n--- 2 of 2 ---\nCAT 1\n"


def test_json(run: Run, engines: list[FakeEngine], fake_model: str) -> None:
    result = json.loads(run("generate", "cat", "-n", "2", "--json", "-m", fake_model).stdout)
    assert [output["text"] for output in result["outputs"]] == ["CAT 0", "CAT 1"]
    assert result["usage"]["completion_tokens"] == 4


def test_refused_prompt(run: Run, engines: list[FakeEngine], fake_model: str) -> None:
    result = run("generate", "too long", "-m", fake_model)
    assert result.exit_code == 1
    assert "error: the prompt has 9,000 tokens" in result.stderr
    assert engines[0].closed


def test_unknown_model_is_told_before_an_engine_is_made(
    run: Run, engines: list[FakeEngine]
) -> None:
    result = run("generate", "x", "-m", "smolm2")
    assert result.exit_code == 1
    assert "Did you mean smollm2" in result.stderr
    assert engines == []
