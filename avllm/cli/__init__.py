"""The ``avllm`` command: ``serve``, ``chat``, ``generate`` and ``model``.

One module per command; what is heavy (the engine, the server, rich, the network) is imported when
a command runs, so that ``avllm --help`` is quick. The only place of `avllm` that may import
`avllm.server`, and only inside ``serve``.
"""

from __future__ import annotations

import click

from avllm.cli.chat import chat
from avllm.cli.errors import ErrorReportingGroup
from avllm.cli.generate import generate
from avllm.cli.model import model
from avllm.cli.serve import serve

EPILOG = """\b
Examples:
  avllm serve                              the default model on http://127.0.0.1:8080
  avllm serve Qwen/Qwen3-1.7B-GGUF:Q8_0    a model of Hugging Face
  avllm chat ./model.gguf                  talk to a file
  avllm generate "Once upon a time"        one completion
"""


@click.group(
    cls=ErrorReportingGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EPILOG,
)
@click.version_option(package_name="avllm", prog_name="avllm", message="%(prog)s %(version)s")
@click.option(
    "--debug", is_flag=True, envvar="AVLLM_DEBUG", show_envvar=True, help="Show tracebacks."
)
def main(debug: bool) -> None:
    """Serve a GGUF model to many people at once."""


for command in (serve, chat, generate, model):
    main.add_command(command)
