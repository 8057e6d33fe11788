"""``GET /health``: may this server be sent requests?

It knows nothing about models: it reads the engine's status and how long ago its thread turned.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from .responses import JSONResponse
from .state import ServerState


def health_routes(state: ServerState) -> list[BaseRoute]:
    """Return the route of the health probe."""

    async def health(request: Request) -> JSONResponse:
        body = _health(state)
        if body["status"] == "ok":
            return JSONResponse(body)
        return JSONResponse(body, 503, {"Retry-After": "1"})

    return [Route("/health", health)]


def _health(state: ServerState) -> dict[str, Any]:
    if state.is_draining:
        return {"status": "draining"}
    if not state.has_engine:
        return {"status": "loading"}
    engine = state.engine
    if engine.status != "ready":
        return {"status": engine.status}
    age = engine.heartbeat_age
    is_stuck = age > state.config.heartbeat_timeout_seconds
    return {
        "status": "stuck" if is_stuck else "ok",
        "model": state.model_name,
        "heartbeat_age_seconds": round(age, 3),
    }
