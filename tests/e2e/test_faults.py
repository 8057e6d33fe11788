"""What the page does when the server, the network, the model or the browser misbehaves."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from .chat_page import ChatPage
from .mock_server import MockServer, refuse, run_mock_server, stream


@pytest.fixture
def chat(page: Page, mock: MockServer) -> ChatPage:
    return ChatPage(page, mock.url).open()


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (400, "context_length_exceeded", "longer than the model's context"),
        (400, None, "The server refused the request."),
        (503, None, "The server is not ready yet."),
        (500, None, "The server could not go on."),
    ],
)
def test_each_refusal_has_its_own_words(
    chat: ChatPage, mock: MockServer, status: int, code: str | None, words: str
) -> None:
    mock.answer = refuse(status, "What the server says.", code)
    chat.send("Hi")
    expect(chat.failure).to_contain_text(words)
    expect(chat.failure).to_contain_text("What the server says.")
    mock.answer = stream(["Better now."])
    chat.button("Try again").click()
    expect(chat.replies).to_contain_text("Better now.")
    expect(chat.failure).to_have_count(0)
    expect(chat.button("Previous version")).to_have_count(0)


def test_a_full_server_is_tried_again_after_its_time(chat: ChatPage, mock: MockServer) -> None:
    mock.answer = refuse(429, "The queue is full.", "queue_full", {"retry-after": "2"})
    chat.send("Hi")
    expect(chat.failure).to_contain_text("The server is full right now.")
    expect(chat.button("Try again in 2 s")).to_be_disabled()
    expect(chat.button("Try again")).to_be_enabled()
    mock.answer = stream(["Better now."])
    chat.button("Try again").click()
    expect(chat.replies).to_contain_text("Better now.")


def test_a_missing_key_is_asked_for(page: Page, mock: MockServer) -> None:
    mock.api_key = "secret"
    page.goto(mock.url)
    expect(page.get_by_text("API key needed")).to_be_visible()
    chat = ChatPage(page, mock.url)
    chat.send("Hi")
    expect(chat.failure).to_contain_text("The server wants an API key.")
    chat.button("Enter API key").last.click()
    field = page.get_by_label("API key", exact=True)
    expect(field).to_be_focused()
    field.fill("secret")
    field.press("Enter")
    page.keyboard.press("Escape")
    expect(page.locator(".dot.ready")).to_be_visible()
    chat.button("Try again").click()
    expect(chat.replies).to_contain_text("Hello there.")


@pytest.mark.parametrize(
    ("ending", "words"),
    [("cut", "The connection broke off."), ("error", "The engine failed.")],
)
def test_a_stream_that_breaks_keeps_its_text(
    chat: ChatPage, mock: MockServer, ending: str, words: str
) -> None:
    mock.answer = stream(["So far", " so good"], ending=ending)
    chat.send("Hi")
    expect(chat.failure).to_contain_text(words)
    expect(chat.replies).to_contain_text("So far so good")
    chat.page.reload()
    expect(chat.replies).to_contain_text("So far so good")
    expect(chat.failure).to_contain_text(words)


def test_stop_is_seen_by_the_server(chat: ChatPage, mock: MockServer) -> None:
    mock.answer = stream([f"word{n} " for n in range(2000)], delay=0.01)
    chat.send("Hi")
    expect(chat.replies).to_contain_text("word5 ")
    chat.box.fill("a draft")
    chat.button("Stop").click()
    expect(chat.replies).to_contain_text("Stopped")
    expect(chat.box).to_have_value("a draft")
    assert len(mock.requests) == 1
    deadline = time.monotonic() + 5
    while not mock.disconnects and time.monotonic() < deadline:
        chat.page.wait_for_timeout(20)
    assert mock.disconnects == 1


def test_the_page_outlives_its_server(page: Page, bundle: Path) -> None:
    with run_mock_server(bundle) as mock:
        chat = ChatPage(page, mock.url).open()
        chat.send("Hi")
        chat.wait_until_done()
    chat.send("Still there?")
    expect(chat.failure).to_contain_text("The server does not answer.")
    expect(page.get_by_text("No answer from the server")).to_be_visible()
    expect(chat.replies.first).to_contain_text("Hello there.")
    expect(page.get_by_role("article", name="You").last).to_have_text("Still there?")


def test_refused_storage_is_said_and_the_chat_goes_on(page: Page, mock: MockServer) -> None:
    page.add_init_script(
        "IDBFactory.prototype.open = () => { throw new DOMException('', 'QuotaExceededError') }"
    )
    chat = ChatPage(page, mock.url).open()
    chat.send("Hi")
    expect(chat.replies).to_contain_text("Hello there.")
    expect(page.get_by_role("alert")).to_contain_text("refused to store")


def test_nothing_that_the_model_writes_runs_or_is_fetched(chat: ChatPage, mock: MockServer) -> None:
    mock.answer = stream(
        [
            '<img src=x onerror="window.hit=1"> <script>window.hit=1</script>\n\n',
            "![pixel](https://example.org/pixel.png) [go](javascript:window.hit=1)\n\n",
            "<svg onload='window.hit=1'></svg>",
            "<iframe srcdoc='<script>top.hit=1</script>'></iframe>",
            "\n\nEnd.",
        ]
    )
    chat.send("Hi")
    expect(chat.replies).to_contain_text("End.")
    chat.wait_until_done()
    assert chat.page.evaluate("window.hit") is None
    expect(chat.replies.locator("img, iframe, script, a[href^=javascript]")).to_have_count(0)
    expect(chat.replies.get_by_role("link", name="pixel")).to_have_attribute(
        "rel", "noopener noreferrer nofollow"
    )


def test_a_reader_who_scrolled_up_is_left_alone(chat: ChatPage, mock: MockServer) -> None:
    mock.answer = stream([f"Line {n}.\n\n" for n in range(150)], delay=0.02)
    chat.send("Hi")
    expect(chat.replies).to_contain_text("Line 40.")
    scroller = chat.page.locator(".scroller")
    scroller.hover()
    chat.page.mouse.wheel(0, -600)
    expect(chat.button("New text below")).to_be_visible()
    top = scroller.evaluate("element => element.scrollTop")
    expect(chat.replies).to_contain_text("Line 149.")
    chat.wait_until_done()
    assert scroller.evaluate("element => element.scrollTop") == top
    chat.button("New text below").click()
    expect(chat.button("New text below")).to_have_count(0)
    left = "e => e.scrollHeight - e.clientHeight - e.scrollTop"
    assert scroller.evaluate(left) <= 1
