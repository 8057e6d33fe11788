"""ServerState: what the routes and the launcher share about one running server.

Event-loop thread only.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from avllm.errors import ModelNotFoundError

from .errors import ModelLoadingError

if TYPE_CHECKING:
    from avllm.engine.async_engine import AsyncEngine

    from .config import ServerConfig

LOADING_RETRY_SECONDS = 2


class ServerState:
    """The engine once it is loaded, the settings, and what is still running.

    Attributes:
        config: the server's settings.
        is_draining: True once nothing new is taken.
        created: Unix time at which the server was made, in whole seconds.
    """

    def __init__(self, config: ServerConfig, engine: AsyncEngine | None = None) -> None:
        self.config = config
        self.is_draining = False
        self.created = int(time.time())
        self._engine = engine
        self._num_active = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def has_engine(self) -> bool:
        """True once the model is loaded."""
        return self._engine is not None

    @property
    def engine(self) -> AsyncEngine:
        """The engine; raises ModelLoadingError while the model loads."""
        if self._engine is None:
            raise ModelLoadingError(
                "The model is still loading; try again in a moment.",
                {"Retry-After": str(LOADING_RETRY_SECONDS)},
            )
        return self._engine

    def attach(self, engine: AsyncEngine) -> None:
        """Start to serve `engine`."""
        self._engine = engine

    @property
    def model_name(self) -> str:
        """The name under which the model is shown."""
        return self.config.alias or self.engine.model_name

    def check_model(self, name: str | None) -> None:
        """Raise ModelNotFoundError unless `name` is the served model; None means that one."""
        if name is not None and name not in {self.model_name, self.engine.model_name}:
            raise ModelNotFoundError(
                f"The model {name[:100]!r} is not served here; use {self.model_name!r}."
            )

    def enter(self) -> None:
        """Count a request in."""
        self._num_active += 1
        self._idle.clear()

    def leave(self) -> None:
        """Count a request out."""
        self._num_active -= 1
        if not self._num_active:
            self._idle.set()

    async def wait_idle(self) -> None:
        """Return as soon as no request runs."""
        await self._idle.wait()
