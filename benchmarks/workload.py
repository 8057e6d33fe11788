"""Load on a server over HTTP: concurrent streamed completions, timed at the client."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass
class StreamResult:
    """What one client saw; times are ``time.perf_counter()``.

    Attributes:
        started: when the request was sent.
        arrivals: when each piece of text arrived.
        text: all of it.
        error: why it failed, or None.
        usage: token counts that the server told at the end, if it did.
    """

    started: float = 0.0
    arrivals: list[float] = field(default_factory=list)
    text: str = ""
    error: str | None = None
    usage: dict[str, Any] | None = None

    @property
    def time_to_first_token(self) -> float:
        """Seconds from sending to the first text."""
        return self.arrivals[0] - self.started if self.arrivals else float("inf")

    @property
    def longest_gap(self) -> float:
        """Longest silence between two pieces, in seconds."""
        pairs = zip(self.arrivals, self.arrivals[1:], strict=False)
        return max((b - a for a, b in pairs), default=0.0)


async def stream(
    client: httpx.AsyncClient, url: str, body: dict[str, Any], delay: float = 0.0
) -> StreamResult:
    """Send one streamed completion after ``delay`` seconds and follow it to the end."""
    await asyncio.sleep(delay)
    result = StreamResult(started=time.perf_counter())
    body = {**body, "stream": True, "stream_options": {"include_usage": True}}
    try:
        async with client.stream("POST", f"{url}/v1/completions", json=body) as response:
            if response.status_code != 200:
                result.error = (await response.aread()).decode()
                return result
            async for line in response.aiter_lines():
                _read(line, result)
    except httpx.HTTPError as error:
        result.error = repr(error)
    return result


def run_all(
    url: str, bodies: Sequence[dict[str, Any]], delays: Sequence[float] | None = None
) -> list[StreamResult]:
    """Send all at once (or each after its delay) and return what each client saw."""
    waits = delays or [0.0] * len(bodies)

    async def main() -> list[StreamResult]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(timeout=900, limits=limits) as client:
            jobs = [stream(client, url, b, w) for b, w in zip(bodies, waits, strict=True)]
            return list(await asyncio.gather(*jobs))

    return asyncio.run(main())


def _read(line: str, result: StreamResult) -> None:
    if not line.startswith("data: {"):
        return
    chunk = json.loads(line[6:])
    if "error" in chunk:
        result.error = json.dumps(chunk["error"])
        return
    result.usage = chunk.get("usage") or result.usage
    text = "".join(choice.get("text") or "" for choice in chunk.get("choices", ()))
    if text:
        result.arrivals.append(time.perf_counter())
        result.text += text
