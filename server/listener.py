"""The HTTP listener: Granian inside this process, over any ASGI application.

Owns addresses and Granian's settings; knows nothing of engines or signals.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server
from starlette.types import ASGIApp

from avllm.errors import ConfigurationError

# Accepted connections, idle ones included; beyond it clients wait unanswered, so the number is
# far above what the engine admits: refusing is the engine's business (429).
_MAX_CONNECTIONS = 16_384
_BACKLOG = 2048
_HEADER_TIMEOUT_MS = 10_000  # also how long an idle connection is kept
_MAX_HEADER_BYTES = 32 * 1024
_MIN_OPEN_FILES = 65_536


def resolve_host(host: str) -> str:
    """Return the address that `host` names; IPv4 where it has both.

    Raises:
        ConfigurationError: the name is unknown; ``param`` is ``host``.
    """
    try:
        found = socket.getaddrinfo(
            host or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as exc:
        raise ConfigurationError(f"host {host!r} cannot be resolved: {exc}.", "host") from None
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return str(found[0][4][0])


def claim_port(address: str, port: int) -> int:
    """Check that `port` can be listened on and return it; for 0 return a free one.

    Granian shares ports (SO_REUSEPORT): without this check a second server on the same port would
    start without a word and take half of the requests.

    Raises:
        ConfigurationError: the port is taken or not allowed; ``param`` is ``port``.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError as exc:
            raise ConfigurationError(
                f"port {port} of {address} cannot be listened on: {exc.strerror}. "
                "Choose another port, or end the program that uses it.",
                "port",
            ) from None
        return int(probe.getsockname()[1])


def raise_file_limit() -> None:
    """Raise the soft limit of open files: each client takes one, and 1,024 is a common limit."""
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MIN_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _MIN_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Listener:
    """A running Granian server. Event-loop thread only."""

    def __init__(self, app: ASGIApp, address: str, port: int) -> None:
        # "asginl": no lifespan. Granian would serve on after a failed one, and tells an
        # application of the end only after its last connection has gone.
        self._server = Server(
            app,
            address=address,
            port=port,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            websockets=False,
            backlog=_BACKLOG,
            backpressure=_MAX_CONNECTIONS,
            http1_settings=HTTP1Settings(
                header_read_timeout=_HEADER_TIMEOUT_MS, max_buffer_size=_MAX_HEADER_BYTES
            ),
            log_enabled=False,
        )
        logging.getLogger("_granian").setLevel(logging.CRITICAL)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> asyncio.Task[None]:
        """Begin to listen; the task ends when the server does."""
        self._task = asyncio.create_task(self._server.serve())
        return self._task

    async def stop(self, timeout: float) -> bool:
        """Stop listening and close the connections; False if some were still open at the end.

        Args:
            timeout: seconds that open connections may take.
        """
        if self._task is None:
            return True
        self._server.stop()  # type: ignore[no-untyped-call]
        done, _ = await asyncio.wait({self._task}, timeout=timeout)
        return bool(done)
