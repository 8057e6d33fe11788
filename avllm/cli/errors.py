"""How the command line tells what went wrong: one line and an exit code, no traceback.

1    an AvllmError: the model, the download, the engine
2    the command line itself: unknown options, values out of range
130  Ctrl-C
"""

from __future__ import annotations

from typing import IO, Any

import click

from avllm.errors import AvllmError

INTERRUPTED = 130


class CliError(click.ClickException):
    """An AvllmError as the user sees it."""

    exit_code = 1

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message to stderr, or to `file`."""
        label = click.style("error:", fg="red", bold=True)
        click.echo(f"{label} {self.message}", file=file, err=file is None)


class ErrorReportingGroup(click.Group):
    """A group whose commands may raise AvllmError; ``--debug`` lets the traceback through."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, turning AvllmError and Ctrl-C into messages and exit codes."""
        try:
            return super().invoke(ctx)
        except AvllmError as error:
            if ctx.params["debug"]:
                raise
            raise CliError(str(error)) from error
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(INTERRUPTED)
