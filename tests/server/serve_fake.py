"""A real server process over the fake engine: ``python serve_fake.py PORT MODE [GRACE]``.

MODE is how the engine behaves: ``ready``, ``slow`` (an endless stream), ``loading`` (never ends),
``broken`` (does not load), ``crashing`` (a bug while loading) or ``deaf`` (close() never returns).
"""

from __future__ import annotations

import sys
import time

from fake_engine import FakeEngine

from avllm.errors import ConfigurationError, ModelLoadError
from avllm.server import ServerConfig, run


class DeafEngine(FakeEngine):
    """An engine whose thread is stuck for ever."""

    def close(self, grace_seconds: float = 0) -> None:
        time.sleep(3600)


def load(mode: str) -> FakeEngine:
    """Return the engine for `mode`, or fail as `mode` says."""
    if mode == "loading":
        time.sleep(3600)
    if mode == "broken":
        raise ModelLoadError("fake.gguf is truncated; pull it again.", "truncated")
    if mode == "crashing":
        raise RuntimeError("a bug while loading")
    if mode == "deaf":
        return DeafEngine()
    if mode == "slow":
        return FakeEngine("x" * 1000, delay=0.05)
    return FakeEngine(delay=0.02)


def main() -> None:
    """Serve until a signal."""
    port, mode = int(sys.argv[1]), sys.argv[2]
    grace = float(sys.argv[3]) if len(sys.argv) > 3 else 30.0
    try:
        run(lambda: load(mode), ServerConfig(port=port, grace_seconds=grace))
    except ConfigurationError as exc:
        print(f"Error: {exc}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
