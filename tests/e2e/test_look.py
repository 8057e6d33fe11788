"""Accessibility, narrow screens, themes, languages, and how much is loaded."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from .chat_page import ChatPage
from .conftest import UI
from .mock_server import MockServer, refuse, stream

MAX_INITIAL_BYTES = 90 * 1024
MAX_BUNDLE_BYTES = 1_200_000
MARKDOWN = [
    "# Title\n\nSome **text** with `code` and a [link](https://example.org).\n\n",
    "| a | b |\n|---|---|\n| 1 | 2 |\n\n> quoted\n\n- one\n- two\n\n",
    "```python\n" + "a_rather_long_line = 'that does not fit a phone' * 100\n" * 3 + "```\n",
]


def _screen(theme: str, width: int) -> dict[str, Any]:
    return {"color_scheme": theme, "viewport": {"width": width, "height": 780}}


@pytest.mark.parametrize(
    "context_options",
    [_screen(theme, width) for theme in ("light", "dark") for width in (360, 1280)],
    ids=["light-phone", "light-desktop", "dark-phone", "dark-desktop"],
)
def test_axe_finds_nothing_serious(page: Page, mock: MockServer) -> None:
    chat = ChatPage(page, mock.url).open()
    page.evaluate((UI / "node_modules/axe-core/axe.min.js").read_text())
    assert _violations(page) == []

    mock.answer = stream(MARKDOWN)
    chat.send("Everything")
    chat.wait_until_done()
    mock.answer = refuse(429, "The queue is full.", None, {"retry-after": "30"})
    chat.send("More")
    expect(chat.failure).to_be_visible()
    assert _violations(page) == []

    chat.button("Settings").click()
    assert _violations(page) == []


def _violations(page: Page) -> list[str]:
    # Contrast is measured on what is there when all motion has ended.
    page.evaluate(
        "Promise.all(document.getAnimations().map(a => a.effect.getTiming().iterations"
        " === Infinity ? null : a.finished))"
    )
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    result = page.evaluate("tags => axe.run({runOnly: tags})", tags)
    return [
        f"{violation['id']}: {node['html']}"
        for violation in result["violations"]
        if violation["impact"] in {"serious", "critical"}
        for node in violation["nodes"]
    ]


@pytest.mark.parametrize("context_options", [_screen("light", 320)], ids=["320px"])
def test_320_pixels_are_enough(page: Page, mock: MockServer) -> None:
    mock.answer = stream(MARKDOWN)
    chat = ChatPage(page, mock.url).open()
    _assert_fits(page)
    page.get_by_role("button", name="Complete it").click()
    expect(chat.continuation).to_contain_text("Title")
    _assert_fits(page)
    expect(chat.button("Send")).to_be_in_viewport(ratio=1)
    chat.button("New chat").click()
    chat.send("A-word-that-is-much-too-long-for-a-line-of-a-telephone " * 3)
    chat.wait_until_done()
    _assert_fits(page)

    chat.button("Show conversations").click()
    drawer = page.get_by_role("navigation", name="Conversations")
    expect(drawer).to_be_visible()
    expect(drawer.get_by_role("button").first).to_be_focused()
    expect(page.get_by_role("main")).to_have_attribute("inert", "")
    page.keyboard.press("Escape")
    expect(drawer).to_have_count(0)
    expect(chat.button("Show conversations")).to_be_focused()
    chat.button("Settings").click()
    _assert_fits(page)


def _assert_fits(page: Page) -> None:
    widths = page.evaluate(
        "[...document.querySelectorAll('html, main, .scroller, .column, dialog, .body')]"
        ".map(e => [e.className, e.scrollWidth - e.clientWidth])"
    )
    assert [entry for entry in widths if entry[1] > 0] == []


@pytest.mark.parametrize("context_options", [{"color_scheme": "dark"}], ids=["dark"])
def test_the_theme_follows_the_system_until_one_is_chosen(page: Page, mock: MockServer) -> None:
    chat = ChatPage(page, mock.url).open()
    background = "getComputedStyle(document.documentElement).backgroundColor"
    dark = page.evaluate(background)
    chat.button("Settings").click()
    page.get_by_role("radio", name="Light").check(force=True)
    light = page.evaluate(background)
    assert light != dark
    # Before the page's own script has run, so that nothing flashes.
    page.route("**/assets/*.js", lambda route: route.abort())
    page.reload(wait_until="commit")
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    expect(page.locator("#app")).to_be_empty()


@pytest.mark.parametrize("context_options", [{"locale": "de-AT"}], ids=["de"])
def test_the_language_follows_the_browser_and_can_be_changed(page: Page, mock: MockServer) -> None:
    page.goto(mock.url)
    expect(page.get_by_role("heading", level=1)).to_have_text("Frag mock-model etwas")
    assert page.evaluate("document.documentElement.lang") == "de"
    page.get_by_role("button", name="Einstellungen").click()
    page.get_by_label("Sprache").select_option("en")
    expect(page.get_by_role("heading", name="Settings")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text("Ask mock-model something")


def test_the_first_load_is_small(page: Page, mock: MockServer, bundle: Path) -> None:
    loaded: list[str] = []
    page.on("response", lambda response: loaded.append(response.url))
    ChatPage(page, mock.url).open()
    files = [bundle / url.removeprefix(f"{mock.url}/") for url in loaded if "/v1/" not in url]
    code = [path for path in files if path.suffix in {".js", ".css"}]
    assert len(code) >= 3
    assert sum(len(gzip.compress(path.read_bytes(), 9)) for path in code) <= MAX_INITIAL_BYTES
    total = sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())
    assert total <= MAX_BUNDLE_BYTES
