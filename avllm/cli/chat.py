"""``avllm chat``: a conversation in the terminal.

Ctrl-C during an answer stops the answer; Ctrl-D or /exit leaves. Answers go to stdout, everything
else to stderr, so a conversation can be piped.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from typing import TYPE_CHECKING, Any

import click

from avllm.cli.conversation import Conversation
from avllm.cli.errors import CliError
from avllm.cli.loading import opened_engine
from avllm.cli.options import engine_options, make_struct, sampling_options
from avllm.config import EngineConfig
from avllm.errors import InvalidRequestError
from avllm.models import DEFAULT_MODEL
from avllm.sampling_params import SamplingParams

if TYPE_CHECKING:
    from avllm import TextDelta

PROMPT = "> "
# A small model may repeat itself without end; nobody is there to stop it when stdin is a pipe.
DEFAULT_MAX_TOKENS = 1024
HELP = """\
/clear          forget the conversation, keep the system prompt
/system TEXT    set the system prompt and begin anew; without TEXT remove it
/help           this list
/exit           leave (or Ctrl-D); Ctrl-C stops an answer"""
EPILOG = """\b
Examples:
  avllm chat
  avllm chat qwen3-1.7b --system "Answer in one sentence." --temperature 0.7
"""


@click.command(epilog=EPILOG, short_help="Talk to a model in the terminal.")
@click.argument("model", default=DEFAULT_MODEL)
@click.option("--system", metavar="TEXT", help="System prompt.")
@click.option(
    "--max-tokens",
    type=int,
    default=DEFAULT_MAX_TOKENS,
    show_default=True,
    help="Longest answer, in tokens.",
)
@sampling_options
@engine_options
def chat(model: str, system: str | None, **options: Any) -> None:
    """Talk to MODEL: a short name, a path, owner/repo[:quant] or a URL."""
    params = make_struct(SamplingParams, options)
    config = make_struct(EngineConfig, options)
    with opened_engine(model, config) as engine:
        if sys.stdin.isatty():
            # Shells let background jobs ignore Ctrl-C and programs inherit that; here it has a use.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        conversation = Conversation(engine, params, system)
        _say(f"{model} is listening. /help lists the commands.")
        while (line := _read_line()) is not None:
            if line.startswith("/"):
                if not _command(conversation, line):
                    break
            elif line:
                _answer(conversation, line)


def _read_line() -> str | None:
    """Return what the user types next, or None to leave; Ctrl-C drops a half-typed line."""
    while True:
        try:
            if not sys.stdin.isatty():
                line = sys.stdin.readline()
                return line.strip() if line else None
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401  gives input() history and editing
            return input(PROMPT).strip()
        except EOFError:
            _say("")
            return None
        except KeyboardInterrupt:
            _say("\n(Ctrl-D or /exit leaves)")


def _command(conversation: Conversation, line: str) -> bool:
    """Obey a slash command; return False to leave."""
    name, _, text = line.partition(" ")
    if name in ("/exit", "/quit"):
        return False
    if name == "/clear":
        conversation.clear()
        _say("Forgotten.")
    elif name == "/system":
        conversation.set_system(text.strip() or None)
        _say("System prompt set." if text.strip() else "System prompt removed.")
    else:
        if name != "/help":
            _say(f"There is no command {name}.")
        _say(HELP)
    return True


def _answer(conversation: Conversation, text: str) -> None:
    """Stream one answer; an error leaves the conversation as it was and the program running."""
    last: TextDelta | None = None
    try:
        with contextlib.closing(conversation.ask(text)) as deltas:
            for last in deltas:
                click.echo(last.text, nl=False)
        click.echo()
        if last is not None:
            _say(_figures(last))
    except KeyboardInterrupt:
        click.echo()
        _say("stopped")
    except InvalidRequestError as error:
        CliError(f"{error} /clear begins anew.").show()


def _figures(last: TextDelta) -> str:
    """Return tokens, tokens per second and time to first token of a finished answer."""
    if last.usage is None or last.timings is None:
        return ""
    tokens = last.usage.completion_tokens
    # The first token comes with the prompt; decode_seconds spans those after it.
    seconds = last.timings.decode_seconds
    rate = f" · {(tokens - 1) / seconds:.1f} tokens/s" if tokens > 1 and seconds > 0 else ""
    first = last.timings.queue_seconds + last.timings.prefill_seconds
    return f"{tokens} tokens{rate} · first after {first:.2f} s"


def _say(text: str) -> None:
    click.secho(text, dim=True, err=True)
