"""run: load the engine, serve it, drain on a signal, end with an exit code.

Owns the order of start and end, and the signals. While the model loads the port already answers,
with 503. Nothing here may hang: what blocks runs in daemon threads, and if something is still
stuck when its time is up, the process leaves without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from avllm.errors import AvllmError

from .app import create_app
from .banner import banner
from .config import ServerConfig
from .listener import Listener, claim_port, raise_file_limit, resolve_host
from .state import ServerState
from .threads import first_of, in_daemon_thread, leave, within

if TYPE_CHECKING:
    from avllm.engine.async_engine import AsyncEngine

logger = logging.getLogger("avllm.server")

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# After the grace period: time for error events to go out, for the engine to end, for sockets.
_ABORT_SECONDS = 2.0
_CLOSE_SECONDS = 5.0


def run(
    engine: AsyncEngine | Callable[[], AsyncEngine],
    config: ServerConfig | None = None,
    *,
    on_ready: Callable[[str], object] | None = None,
) -> NoReturn:
    """Serve until SIGTERM or SIGINT, then end the process. Main thread only.

    The first signal drains: new requests get 503, running ones may finish within
    ``config.grace_seconds``, the rest ends with an error event. A second signal ends the process
    at once. The exit code is 0 after a signal, 1 if the model could not be loaded or the listener
    failed; the reason is on stderr.

    It does not return, and ``atexit`` functions do not run: Granian's threads outlive its server
    by some milliseconds, and one that meets an interpreter being torn down aborts the process.

    Args:
        engine: a loaded engine, or what loads one; that is called in a thread of its own while
            the port already answers 503. The engine is closed at the end either way.
        config: settings; the defaults if None.
        on_ready: called with the `banner` once the model is served; None prints it.

    Raises:
        ConfigurationError: the host cannot be resolved or the port is taken.
    """
    config = config or ServerConfig()
    address = resolve_host(config.host)
    port = claim_port(address, config.port)
    raise_file_limit()
    load = engine if callable(engine) else lambda: engine
    launch = _Launch(load, config, address, port, on_ready or _print)
    leave(asyncio.run(launch.main()))


def _print(text: str) -> None:
    print(text, flush=True)


class _Launch:
    """One run, from the open port to the exit code. Event-loop thread only."""

    def __init__(
        self,
        load: Callable[[], AsyncEngine],
        config: ServerConfig,
        address: str,
        port: int,
        on_ready: Callable[[str], object],
    ) -> None:
        self._load = load
        self._config = config
        self._address = address
        self._port = port
        self._on_ready = on_ready
        self._num_signals = 0

    async def main(self) -> int:
        """Serve and return the exit code."""
        stop = asyncio.Event()
        app = create_app(None, self._config)
        state: ServerState = app.state.server
        listener = Listener(app, self._address, self._port)
        with self._handle_signals(stop):
            stopped = asyncio.ensure_future(stop.wait())
            serving = listener.start()
            code = await self._serve(state, serving, stopped)
            stopped.cancel()
            state.is_draining = True
            if state.has_engine:
                await self._drain(state)
            if not await listener.stop(_ABORT_SECONDS):
                logger.warning("Some connections did not close in time and were cut.")
                leave(code)
        return code

    async def _serve(
        self, state: ServerState, serving: asyncio.Task[None], stopped: asyncio.Future[Any]
    ) -> int:
        loading = in_daemon_thread(self._load)
        await first_of(loading, stopped, serving)
        if stopped.done() and not loading.done():
            leave(0)  # llama.cpp reads the file and nothing runs yet: there is nothing to end
        if loading.done():
            try:
                state.attach(loading.result())
            except Exception as exc:
                _report_load_failure(exc)
                return 1
            self._announce(state)
            await first_of(stopped, serving)
        if serving.done():
            logger.error("The HTTP listener ended unexpectedly.", exc_info=serving.exception())
            return 1
        return 0

    def _announce(self, state: ServerState) -> None:
        has_keys = bool(self._config.api_keys)
        is_local = self._address.startswith("127.") or self._address == "::1"
        if not (has_keys or is_local):
            logger.warning("No API key is set: whoever reaches %s may use it.", self._address)
        self._on_ready(banner(state.model_name, self._address, self._port, needs_key=has_keys))

    async def _drain(self, state: ServerState) -> None:
        logger.info("Draining for at most %g seconds.", self._config.grace_seconds)
        await within(state.wait_idle(), self._config.grace_seconds)
        # Closing the engine fails what still runs; its streams then send an error event.
        closing = in_daemon_thread(state.engine.close)
        await within(state.wait_idle(), _ABORT_SECONDS)
        if not await within(closing, _CLOSE_SECONDS):
            logger.error("The engine did not end in time and was cut.")
            leave(0)

    @contextlib.contextmanager
    def _handle_signals(self, stop: asyncio.Event) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number, stop)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    def _on_signal(self, number: int, stop: asyncio.Event) -> None:
        self._num_signals += 1
        if self._num_signals > 1:
            leave(128 + number)
        stop.set()


def _report_load_failure(exc: Exception) -> None:
    if isinstance(exc, AvllmError):
        print(f"Error: {exc}", file=sys.stderr, flush=True)
    else:
        logger.error("The model could not be loaded.", exc_info=exc)
