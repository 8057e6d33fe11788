"""A real headless Chromium, and the page on a real or a mock server."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from .mock_server import MockServer, run_mock_server

UI = Path(__file__).resolve().parents[2] / "ui"
TIMEOUT_MS = 10_000
# Chromium's own background traffic is switched off: a test must see the page's requests alone.
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Chromium reports every status above 399 by itself, also those that a test asked for.
EXPECTED_CONSOLE = ("Failed to load resource",)


@pytest.fixture(scope="session")
def bundle() -> Path:
    """The folder of the built page."""
    directory = UI / "dist"
    if not (directory / "index.html").is_file():
        pytest.fail("the web page is not built: run `make build` first")
    return directory


# Not of the session: while Playwright is open it runs an event loop, and other tests start theirs.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Chromium from $CHROMIUM or the PATH; without one the tests are skipped."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if path is None:
        pytest.skip("needs Chromium: install it, or set CHROMIUM to its path")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def context_options() -> dict[str, Any]:
    """Options of the browser's context; a test overrides them by parametrizing this name."""
    return {}


@pytest.fixture
def page(browser: Browser, context_options: dict[str, Any]) -> Iterator[Page]:
    """An empty tab with its own storage; fails its test on console errors and foreign requests."""
    options = {"viewport": {"width": 1280, "height": 800}, "locale": "en-GB", **context_options}
    context = browser.new_context(**options)
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(f"uncaught: {error}"))
    page.on("console", lambda message: _note_console(problems, message))
    page.on("request", lambda request: _note_request(problems, request.url))
    yield page
    context.close()
    assert problems == []


@pytest.fixture
def mock(bundle: Path) -> Iterator[MockServer]:
    """A server whose answers the test scripts."""
    with run_mock_server(bundle) as server:
        yield server


def _note_console(problems: list[str], message: Any) -> None:
    if message.type == "error" and not message.text.startswith(EXPECTED_CONSOLE):
        problems.append(f"console: {message.text}")


def _note_request(problems: list[str], url: str) -> None:
    if not url.startswith(("http://127.0.0.1:", "http://localhost:", "data:", "blob:")):
        problems.append(f"request to another host: {url}")
