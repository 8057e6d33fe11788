"""``avllm serve``: the HTTP server in the foreground."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from avllm.cli.options import engine_options, field_option, make_struct
from avllm.cli.progress import load_progress, pull_progress
from avllm.config import EngineConfig
from avllm.models import DEFAULT_MODEL, resolve

if TYPE_CHECKING:
    from avllm import AsyncEngine

LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
EPILOG = """\b
Examples:
  avllm serve
  avllm serve ./model.gguf --port 9000 --parallel 64 --ctx-size 16384
  AVLLM_API_KEY=secret avllm serve qwen3-1.7b --host 0.0.0.0 --alias assistant
"""


@click.command(epilog=EPILOG, short_help="Serve a model over HTTP, with a web page.")
@click.argument("model", default=DEFAULT_MODEL)
@click.option("--host", help="Address to listen on; 0.0.0.0 is all.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="TCP port; 0 takes a free one.  [default: 8080]")
@field_option(
    EngineConfig,
    "--parallel",
    "max_num_seqs",
    type=int,
    metavar="N",
    text="Sequences that run at once; more wait.",
)
@engine_options
@click.option(
    "--api-key",
    "api_keys",
    multiple=True,
    envvar="AVLLM_API_KEY",
    show_envvar=True,
    metavar="KEY",
    help="Key that clients must present; several are allowed.",
)
@click.option(
    "--api-key-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with one key per line.",
)
@click.option("--alias", metavar="NAME", help="Model name to show to clients.")
@click.option(
    "--cors-origin",
    "cors_origins",
    multiple=True,
    metavar="ORIGIN",
    help="Web origin whose pages may call the API, or *; several are allowed.",
)
@field_option(
    EngineConfig,
    "--max-queue",
    "max_queued_requests",
    type=int,
    metavar="N",
    text="Requests that may wait; more get 429.",
)
@field_option(
    EngineConfig,
    "--queue-timeout",
    "queue_timeout_seconds",
    type=float,
    metavar="SECONDS",
    text="Longest wait in the queue.",
)
@field_option(
    EngineConfig,
    "--itl-target-ms",
    "itl_target_ms",
    type=float,
    metavar="MS",
    text="Pause between two tokens that new prompts must not push running streams beyond.",
)
@field_option(
    EngineConfig,
    "--batch-size",
    "max_num_batched_tokens",
    type=int,
    metavar="TOKENS",
    text="Most tokens computed in one step.",
)
@field_option(
    EngineConfig,
    "--cache-type",
    "kv_cache_type",
    metavar="TYPE",
    text="Type of the KV cache: f16, f32 or q8_0.",
)
@click.option(
    "--prefix-cache/--no-prefix-cache",
    default=None,
    help="Share equal beginnings of prompts.  [default: on]",
)
@field_option(
    EngineConfig,
    "--park-memory",
    "park_memory_mib",
    type=int,
    metavar="MIB",
    text="Host memory for sequences that must step aside.",
)
@click.option(
    "--grace",
    "grace_seconds",
    type=float,
    metavar="SECONDS",
    help="Time that running requests get after SIGTERM.  [default: 30]",
)
@click.option(
    "--log-level",
    type=click.Choice(LOG_LEVELS),
    default="info",
    show_default=True,
    help="What is logged to stderr.",
)
@click.option(
    "--access-log/--no-access-log", default=None, help="Log a line per request.  [default: on]"
)
def serve(
    model: str, api_keys: tuple[str, ...], api_key_file: Path | None, log_level: str, **options: Any
) -> None:
    """Serve MODEL over HTTP: a short name, a path, owner/repo[:quant] or a URL."""
    from avllm.server.config import ServerConfig
    from avllm.server.launch import run

    logging.basicConfig(level=log_level.upper(), format=LOG_FORMAT)
    keys = api_keys + (_read_keys(api_key_file) if api_key_file else ())
    engine_config = make_struct(EngineConfig, options)
    server_config = make_struct(ServerConfig, {**options, "api_keys": keys})
    # Before the port opens: a model that cannot be had is an ordinary error of the command.
    with pull_progress() as on_progress:
        resolve(model, on_progress=on_progress)
    sys.exit(run(lambda: _load(model, engine_config), server_config))


def _load(model: str, config: EngineConfig) -> AsyncEngine:
    """Load the model in the thread that the server gives to it."""
    from avllm import AsyncEngine

    with load_progress(model) as on_load:
        return AsyncEngine(model, config, on_progress=on_load)


def _read_keys(path: Path) -> tuple[str, ...]:
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys:
        # Otherwise an empty file would open the server to everybody.
        raise click.BadParameter(f"{path} holds no key.", param_hint="--api-key-file")
    return keys
