"""A JSON response written by msgspec."""

from __future__ import annotations

import msgspec
from starlette.responses import Response

_encoder = msgspec.json.Encoder()


class JSONResponse(Response):
    """A Struct, or anything else that msgspec writes, as ``application/json``."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        """Return `content` as JSON."""
        return _encoder.encode(content)
