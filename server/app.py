"""create_app: the ASGI application, put together. Knows no server and no signals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

from .config import ServerConfig
from .errors import error_response
from .health import health_routes
from .middleware import (
    APIKeyMiddleware,
    DrainMiddleware,
    ErrorMiddleware,
    RequestIdMiddleware,
)
from .openai.routes import OpenAIRoutes
from .prometheus import metrics_routes
from .state import ServerState
from .static import load_page, static_routes

if TYPE_CHECKING:
    from avllm.engine.async_engine import AsyncEngine


def create_app(engine: AsyncEngine | None = None, config: ServerConfig | None = None) -> Starlette:
    """Return the ASGI application that serves `engine`.

    The caller keeps owning the engine: the application neither starts nor closes it. Without an
    engine, requests get 503 until ``app.state.server.attach(engine)``.

    Args:
        engine: a loaded engine, or None to attach one later.
        config: settings; the defaults if None.
    """
    config = config or ServerConfig()
    state = ServerState(config, engine)
    page = static_routes(load_page())
    open_paths = {"/health", *(route.path for route in page)}
    app = Starlette(
        routes=[
            *health_routes(state),
            *metrics_routes(state),
            *OpenAIRoutes(state).routes(),
            *page,
        ],
        middleware=_middleware(state, open_paths),
        exception_handlers={HTTPException: _routing_error},
    )
    app.router.redirect_slashes = False
    app.state.server = state
    return app


def _middleware(state: ServerState, open_paths: set[str]) -> list[Middleware]:
    config = state.config
    stack = [Middleware(RequestIdMiddleware, access_log=config.access_log)]
    if config.cors_origins:
        stack.append(
            Middleware(
                CORSMiddleware,
                allow_origins=config.cors_origins,
                allow_methods=["GET", "POST"],
                allow_headers=["*"],
                expose_headers=["x-request-id", "retry-after"],
            )
        )
    stack.append(Middleware(ErrorMiddleware))
    if config.api_keys:
        stack.append(Middleware(APIKeyMiddleware, keys=config.api_keys, open_paths=open_paths))
    stack.append(Middleware(DrainMiddleware, state=state))
    return stack


async def _routing_error(request: Request, exc: Exception) -> Response:
    return error_response(exc)
