"""Waiting on the event loop without ever hanging at exit."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")


def in_daemon_thread(function: Callable[[], T]) -> asyncio.Future[T]:
    """Call `function` in a thread that does not keep the process alive; return its future.

    `asyncio.to_thread` would: its pool is joined when the loop and the interpreter end.
    """
    future: concurrent.futures.Future[T] = concurrent.futures.Future()

    def work() -> None:
        try:
            future.set_result(function())
        except BaseException as exc:
            future.set_exception(exc)

    threading.Thread(target=work, name=f"avllm-{function.__name__}", daemon=True).start()
    return asyncio.wrap_future(future)


async def first_of(*futures: asyncio.Future[Any]) -> None:
    """Return as soon as one of `futures` is done; its result is not looked at."""
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


async def within(awaitable: Awaitable[object], seconds: float) -> bool:
    """Wait for `awaitable` at most `seconds`; False if it was still running (it is cancelled)."""
    try:
        await asyncio.wait_for(awaitable, seconds)
    except (TimeoutError, asyncio.TimeoutError):  # two classes before Python 3.11
        return False
    return True


def leave(code: int) -> NoReturn:
    """End the process now, whatever its threads do; only flush what was printed and logged."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue
    os._exit(code)
