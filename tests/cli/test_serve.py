"""avllm serve: what it hands to the server; the server itself is tested in tests/server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import avllm
import avllm.server.launch
from avllm.config import EngineConfig

from .conftest import Run
from .fake_engine import FakeEngine

Calls = list[tuple[FakeEngine, Any]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """The (engine, config) pairs that were served; serving ends at once with exit code 7."""
    served: Calls = []

    def serve_nothing(load: Callable[[], FakeEngine], config: Any) -> int:
        served.append((load(), config))
        return 7

    monkeypatch.setattr(avllm.server.launch, "run", serve_nothing)
    monkeypatch.setattr(avllm, "AsyncEngine", FakeEngine, raising=False)
    monkeypatch.setattr(FakeEngine, "opened", [])
    return served


def test_defaults_and_exit_code(run: Run, calls: Calls, fake_model: str) -> None:
    result = run("serve", fake_model)
    assert result.exit_code == 7, result.output
    ((engine, config),) = calls
    assert engine.model == fake_model
    assert engine.config == EngineConfig()
    assert config == type(config)()


def test_options(run: Run, calls: Calls, fake_model: str) -> None:
    options = (
        "--host 0.0.0.0 --port 9000 --parallel 4 --ctx-size 1024 --threads 1 --gpu-layers 0 "
        "--alias me --cors-origin http://a --cors-origin http://b --max-queue 9 --itl-target-ms 50 "
        "--grace 5 --no-prefix-cache --no-access-log --cache-type q8_0 --batch-size 256"
    )
    assert run("serve", fake_model, *options.split()).exit_code == 7
    ((engine, config),) = calls
    assert engine.config == EngineConfig(
        max_num_seqs=4, context_length=1024, num_threads=1, num_gpu_layers=0,
        max_queued_requests=9, itl_target_ms=50, prefix_cache=False, kv_cache_type="q8_0",
        max_num_batched_tokens=256,
    )  # fmt: skip
    assert (config.host, config.port, config.alias) == ("0.0.0.0", 9000, "me")
    assert config.cors_origins == ("http://a", "http://b")
    assert (config.grace_seconds, config.access_log) == (5, False)


def test_keys_of_options_and_file(run: Run, calls: Calls, fake_model: str, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# staff\nthree\n\n four \n")
    run("serve", fake_model, "--api-key", "one", "--api-key", "two", "--api-key-file", str(keys))
    assert calls[0][1].api_keys == ("one", "two", "three", "four")


def test_key_of_the_environment(
    run: Run, calls: Calls, fake_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AVLLM_API_KEY", "secret")
    run("serve", fake_model)
    assert calls[0][1].api_keys == ("secret",)


def test_file_without_keys_does_not_open_the_server(
    run: Run, calls: Calls, fake_model: str, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text("# nobody yet\n")
    result = run("serve", fake_model, "--api-key-file", str(tmp_path / "keys"))
    assert result.exit_code == 2
    assert "holds no key" in result.stderr
    assert calls == []


@pytest.mark.parametrize(("option", "value"), [("--port", "70000"), ("--parallel", "900")])
def test_bad_value(run: Run, calls: Calls, fake_model: str, option: str, value: str) -> None:
    result = run("serve", fake_model, option, value)
    assert result.exit_code == 2
    assert f"Invalid value for '{option}'" in result.stderr
    assert calls == []


def test_missing_model_ends_before_the_port_opens(run: Run, calls: Calls) -> None:
    result = run("serve", "./missing.gguf")
    assert result.exit_code == 1
    assert "error: there is no file missing.gguf" in result.stderr
    assert calls == []
