"""``python -m avllm`` is the ``avllm`` command."""

from __future__ import annotations

from avllm.cli import main

if __name__ == "__main__":
    main(prog_name="avllm")
