"""avllm.server: the engine over HTTP.

`create_app` makes the ASGI application, `run` serves it until a signal ends it.
"""

from __future__ import annotations

from .app import create_app
from .banner import banner
from .config import ServerConfig
from .launch import run

__all__ = ["ServerConfig", "banner", "create_app", "run"]
