"""The chat page as a person uses it: what a test does and sees, by role and name."""

from __future__ import annotations

import re

from playwright.sync_api import Locator, Page, expect


class ChatPage:
    """Wraps a tab that shows the page.

    Parameters:
        page: the tab.
        url: address of the page.
    """

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url

    def open(self) -> ChatPage:
        """Load the page and wait until it has found its model."""
        self.page.goto(self.url)
        expect(self.page.locator(".dot.ready")).to_be_visible()
        return self

    @property
    def box(self) -> Locator:
        """Where text is written."""
        return self.page.get_by_role("textbox", name="Message")

    @property
    def replies(self) -> Locator:
        """What the model wrote, in chat mode."""
        return self.page.get_by_role("article", name="Model")

    @property
    def continuation(self) -> Locator:
        """The text that the model added, in Complete mode."""
        return self.page.get_by_role("article").locator("mark")

    @property
    def failure(self) -> Locator:
        """The note below a reply that failed."""
        return self.page.get_by_role("alert")

    @property
    def speed(self) -> Locator:
        """The figures below the last reply."""
        return self.page.get_by_text(re.compile(r"tok/s")).last

    def button(self, name: str) -> Locator:
        """Return the button with exactly this name."""
        return self.page.get_by_role("button", name=name, exact=True)

    def send(self, text: str) -> None:
        """Write a message and press Enter."""
        self.box.fill(text)
        self.box.press("Enter")

    def wait_until_done(self) -> None:
        """Wait until no reply is being generated."""
        expect(self.button("Send")).to_be_visible(timeout=60_000)
        expect(self.button("Stop")).to_have_count(0)

    def set(self, label: str, value: str) -> None:
        """Change one field of the settings."""
        self.button("Settings").click()
        field = self.page.get_by_role("dialog").get_by_label(label, exact=True).first
        field.fill(value)
        field.blur()
        self.page.keyboard.press("Escape")
        expect(self.page.get_by_role("dialog")).to_have_count(0)
