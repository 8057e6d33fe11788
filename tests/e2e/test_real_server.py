"""The page on a real server with the default model."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import Page, expect

from .chat_page import ChatPage

LONG = "Write a very long story about a lighthouse keeper who counts the waves."


@pytest.fixture
def chat(page: Page, server_url: str) -> ChatPage:
    return ChatPage(page, server_url).open()


def test_the_fox_example_is_completed_greedily(chat: ChatPage) -> None:
    with chat.page.expect_request("**/v1/completions") as request:
        chat.page.get_by_role("button", name=re.compile("The\\s*quick\\s*brown")).click()
    assert json.loads(request.value.post_data or "")["temperature"] == 0
    expect(chat.continuation).to_have_text(re.compile(r"^ over a lazy dog"))
    chat.wait_until_done()
    expect(chat.speed).to_be_visible()
    expect(chat.page.get_by_role("article")).to_contain_text(
        "The quick brown fox jumps over a lazy dog"
    )


def test_a_reply_grows_while_it_streams(chat: ChatPage) -> None:
    chat.set("Max tokens", "120")
    chat.send(LONG)
    prose = chat.replies.locator(".prose")
    expect(prose).to_have_text(re.compile(r"\S+"), timeout=60_000)
    early = prose.inner_text()
    expect(chat.button("Stop")).to_be_visible()
    expect(chat.speed).to_be_visible()
    chat.wait_until_done()
    assert len(prose.inner_text()) > len(early)
    expect(chat.replies).to_contain_text(re.compile(r"tokens.*first after", re.DOTALL))


def test_stop_keeps_the_text_and_the_conversation_goes_on(chat: ChatPage) -> None:
    chat.send(LONG)
    prose = chat.replies.first.locator(".prose")
    expect(prose).to_have_text(re.compile(r"\S+"), timeout=60_000)
    chat.button("Stop").click(timeout=1000)
    expect(chat.page.get_by_text("Stopped").last).to_be_visible()
    kept = prose.inner_text()
    chat.set("Max tokens", "8")
    chat.send("Thank you.")
    expect(chat.replies).to_have_count(2)
    chat.wait_until_done()
    assert prose.inner_text() == kept


def test_greedy_chat_is_repeatable_and_survives_a_reload(chat: ChatPage) -> None:
    chat.set("Temperature", "0")
    chat.set("Max tokens", "16")
    chat.send("Count from one to ten.")
    prose = chat.replies.locator(".prose")
    expect(prose).to_have_text(re.compile(r"\S+"), timeout=60_000)
    chat.wait_until_done()
    first = prose.inner_text()
    chat.button("Try again").click()
    expect(chat.page.get_by_text("Version 2 of 2")).to_be_attached()
    chat.wait_until_done()
    assert prose.inner_text() == first
    chat.page.reload()
    expect(prose).to_have_text(first, use_inner_text=True)
    expect(chat.page.get_by_text("Version 2 of 2")).to_be_attached()


def test_a_refused_value_names_the_parameter(chat: ChatPage) -> None:
    settings = json.dumps({"topP": -1})
    chat.page.evaluate("value => localStorage.setItem('avllm.settings', value)", settings)
    chat.open()
    chat.send("Hi")
    expect(chat.failure).to_contain_text("The server refused the request.")
    expect(chat.failure).to_contain_text("top_p must be between 0 and 1, got -1")


def test_a_prompt_longer_than_the_context_is_told_apart(chat: ChatPage) -> None:
    chat.send("word " * 40_000)
    expect(chat.failure).to_contain_text("longer than the model's context", timeout=60_000)
