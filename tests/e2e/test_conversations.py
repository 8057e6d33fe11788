"""Conversations: sending, settings, storage, branches, the sidebar, keys."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from .chat_page import ChatPage
from .mock_server import MockServer, stream


@pytest.fixture
def chat(page: Page, mock: MockServer) -> ChatPage:
    return ChatPage(page, mock.url).open()


def test_the_request_carries_history_system_prompt_and_samplers(
    chat: ChatPage, mock: MockServer
) -> None:
    chat.set("System prompt", "Be brief.")
    chat.set("Temperature", "0.3")
    chat.set("Max tokens", "50")
    chat.set("Seed", "7")
    chat.send("One")
    chat.wait_until_done()
    chat.send("Two")
    chat.wait_until_done()
    body = mock.requests[-1]
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "One"},
        {"role": "assistant", "content": "Hello there."},
        {"role": "user", "content": "Two"},
    ]
    assert body["model"] == "mock-model"
    assert (body["temperature"], body["max_tokens"], body["seed"]) == (0.3, 50, 7)
    assert (body["top_p"], body["top_k"], body["min_p"]) == (0.95, 40, 0.05)
    assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True})


def test_enter_sends_but_not_with_shift_or_while_composing(
    chat: ChatPage, mock: MockServer
) -> None:
    chat.box.fill("a line")
    chat.box.press("Shift+Enter")
    expect(chat.box).to_have_value("a line\n")
    chat.box.evaluate(
        "box => box.dispatchEvent("
        "new KeyboardEvent('keydown', {key: 'Enter', isComposing: true, bubbles: true}))"
    )
    assert mock.requests == []
    chat.box.press("Enter")
    chat.wait_until_done()
    assert mock.requests[0]["messages"] == [{"role": "user", "content": "a line"}]


def test_a_complete_prompt_is_sent_as_it_was_written(chat: ChatPage, mock: MockServer) -> None:
    chat.page.get_by_role("radio", name="Complete").check(force=True)
    chat.send("  Once upon a ")
    chat.wait_until_done()
    assert mock.requests[0]["prompt"] == "  Once upon a "
    assert "messages" not in mock.requests[0]
    expect(chat.continuation).to_have_text("Hello there.")


def test_final_figures_are_the_servers(chat: ChatPage) -> None:
    chat.send("Hi")
    chat.wait_until_done()
    for figure in ("42 tok/s", "3 tokens", "12 of 20 prompt tokens cached"):
        expect(chat.replies).to_contain_text(figure)


def test_versions_of_a_reply_can_be_paged_and_survive_a_reload(
    chat: ChatPage, mock: MockServer
) -> None:
    chat.send("Hi")
    chat.wait_until_done()
    mock.answer = stream(["Another", " one"])
    chat.button("Try again").click()
    expect(chat.replies).to_contain_text("Another one")
    chat.wait_until_done()
    chat.button("Previous version").click()
    expect(chat.replies).to_contain_text("Hello there.")
    expect(chat.page.get_by_text("Version 1 of 2")).to_be_attached()
    chat.page.reload()
    expect(chat.replies).to_contain_text("Hello there.")
    chat.button("Next version").click()
    expect(chat.replies).to_contain_text("Another one")


def test_conversations_are_listed_opened_and_deleted(chat: ChatPage) -> None:
    chat.send("First topic")
    chat.wait_until_done()
    chat.button("New chat").click()
    chat.send("Second topic")
    chat.wait_until_done()
    sidebar = chat.page.get_by_role("navigation", name="Conversations")
    expect(sidebar.get_by_role("link")).to_have_text([re.compile("Second"), re.compile("First")])

    sidebar.get_by_role("link", name="First topic").click()
    expect(chat.page.get_by_role("article", name="You")).to_have_text("First topic")
    chat.page.go_back()
    expect(chat.page.get_by_role("article", name="You")).to_have_text("Second topic")

    sidebar.get_by_role("link", name="First topic").hover()
    chat.button("Delete “First topic”").click()
    chat.page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(sidebar.get_by_role("link")).to_have_count(2)
    sidebar.get_by_role("link", name="First topic").hover()
    chat.button("Delete “First topic”").click()
    chat.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(sidebar.get_by_role("link")).to_have_count(1)
    chat.page.reload()
    expect(sidebar.get_by_role("link")).to_have_text([re.compile("Second")])


def test_a_conversation_deleted_while_it_streams_stays_deleted(
    chat: ChatPage, mock: MockServer
) -> None:
    mock.answer = stream([f"word{n} " for n in range(300)], delay=0.02)
    chat.send("Slow one")
    expect(chat.replies).to_contain_text("word5 ")
    link = chat.page.get_by_role("link", name="Slow one")
    link.hover()
    chat.button("Delete “Slow one”").click()
    chat.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(chat.page.get_by_role("heading", level=1)).to_be_visible()
    expect(link).to_have_count(0)
    chat.page.reload()
    expect(chat.page.locator(".dot.ready")).to_be_visible()
    expect(link).to_have_count(0)


def test_a_reply_goes_on_while_another_conversation_is_on_view(
    chat: ChatPage, mock: MockServer
) -> None:
    mock.answer = stream([f"word{n} " for n in range(20)], delay=0.05)
    chat.send("Slow one")
    chat.button("New chat").click()
    mock.answer = stream(["quick"])
    chat.send("Fast one")
    expect(chat.replies).to_contain_text("quick")
    chat.page.get_by_role("link", name="Slow one").click()
    expect(chat.replies).to_contain_text("word19")


def test_a_draft_survives_a_reload(chat: ChatPage) -> None:
    chat.send("Hi")
    chat.wait_until_done()
    chat.box.fill("not sent yet")
    chat.page.reload()
    expect(chat.box).to_have_value("not sent yet")


def test_an_interrupted_reply_keeps_what_was_stored(chat: ChatPage, mock: MockServer) -> None:
    mock.answer = stream([f"word{n} " for n in range(200)], delay=0.03)
    chat.send("Hi")
    expect(chat.replies).to_contain_text("word60")
    chat.page.reload()
    expect(chat.replies).to_contain_text("word1 ")
    expect(chat.page.get_by_text("Interrupted when the page was closed")).to_be_visible()


def test_everything_works_below_a_path_prefix(page: Page, mock: MockServer) -> None:
    chat = ChatPage(page, f"{mock.url}/prefix/").open()
    chat.send("Hi")
    chat.wait_until_done()
    expect(chat.replies).to_contain_text("Hello there.")
    chat.page.reload()
    expect(chat.replies).to_contain_text("Hello there.")


def test_keys_reach_everything(chat: ChatPage, mock: MockServer) -> None:
    keyboard = chat.page.keyboard
    expect(chat.box).to_be_focused()
    keyboard.press("Control+,")
    expect(chat.page.get_by_role("dialog")).to_be_visible()
    keyboard.press("Escape")
    expect(chat.page.get_by_role("dialog")).to_have_count(0)
    keyboard.press("Control+b")
    expect(chat.page.get_by_role("navigation")).to_have_count(0)
    keyboard.press("Control+b")
    expect(chat.page.get_by_role("navigation")).to_be_visible()

    mock.answer = stream([f"word{n} " for n in range(200)], delay=0.03)
    chat.box.focus()
    keyboard.type("Hi")
    keyboard.press("Enter")
    expect(chat.replies).to_contain_text("word3")
    keyboard.press("Tab")
    keyboard.press("Tab")
    expect(chat.button("Stop")).to_be_focused()
    keyboard.press("Enter")
    expect(chat.replies).to_contain_text("Stopped")
    expect(chat.button("Send")).to_be_focused()
    chat.box.focus()
    keyboard.type("Again")
    keyboard.press("Enter")
    expect(chat.replies.last).to_contain_text("word3")
    keyboard.press("Escape")
    expect(chat.replies.last).to_contain_text("Stopped")
    keyboard.press("Control+Shift+O")
    expect(chat.page.get_by_role("heading", level=1)).to_be_visible()


def test_code_can_be_copied(page: Page, mock: MockServer) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    mock.answer = stream(["```python\n", "print('fox')\n", "```\n"])
    chat = ChatPage(page, mock.url).open()
    chat.send("Code")
    chat.wait_until_done()
    chat.button("Copy code").click()
    expect(chat.button("Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "print('fox')"
