"""Inbox: exact bounds under threads, no lost message, honest Retry-After."""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Callable

import pytest

from avllm.engine import inbox as inbox_module
from avllm.engine.inbox import Inbox
from avllm.engine.request import Cancellation, GenerationRequest
from avllm.errors import EngineOverloadedError, EngineStoppedError
from avllm.sampling_params import SamplingParams


def request_of(tokens: int) -> GenerationRequest:
    """Return a request with a prompt of so many tokens."""
    return GenerationRequest(
        prompt_token_ids=array("i", [1] * tokens),
        params=SamplingParams(),
        sink=lambda _, update: None,
        max_total_tokens=2 * tokens,
    )


def in_threads(count: int, work: Callable[[], None]) -> None:
    """Run ``work`` in many threads that begin at the same moment."""
    barrier = threading.Barrier(count)

    def run() -> None:
        barrier.wait(10)
        work()

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that a test turns: its only item is the time."""
    now = [1000.0]
    monkeypatch.setattr(inbox_module.time, "monotonic", lambda: now[0])
    return now


def retry_after(inbox: Inbox) -> float:
    """Return what a refused caller is told."""
    with pytest.raises(EngineOverloadedError) as caught:
        inbox.reserve()
    return caught.value.retry_after


def test_exactly_as_many_as_there_are_places_come_in() -> None:
    inbox = Inbox(100, 10_000)
    refused: list[EngineOverloadedError] = []

    def reserve() -> None:
        for _ in range(20):
            try:
                inbox.reserve()
            except EngineOverloadedError as error:
                refused.append(error)

    in_threads(16, reserve)
    assert (inbox.num_requests, len(refused)) == (100, 220)


def test_places_come_back_whoever_takes_them() -> None:
    inbox = Inbox(4, 10_000)

    def come_and_go() -> None:
        for _ in range(200):
            try:
                inbox.reserve()
            except EngineOverloadedError:
                continue
            assert inbox.num_requests <= 4
            inbox.release()

    in_threads(8, come_and_go)
    assert inbox.num_requests == 0


def test_prompt_tokens_are_bounded_and_counted() -> None:
    inbox = Inbox(100, 50)
    first = request_of(30)
    for request in (first, request_of(20)):
        inbox.reserve()
        inbox.submit(request)
    inbox.reserve()
    with pytest.raises(EngineOverloadedError, match="50 prompt tokens"):
        inbox.submit(request_of(1))
    inbox.leave_queue(first)
    inbox.submit(request_of(30))
    assert (inbox.num_tokens, inbox.num_waiting) == (50, 2)


def test_a_prompt_longer_than_the_bound_comes_in_alone() -> None:
    inbox = Inbox(100, 50)
    inbox.reserve()
    inbox.submit(request_of(80))
    inbox.reserve()
    with pytest.raises(EngineOverloadedError):
        inbox.submit(request_of(1))


def test_messages_keep_their_order_and_none_is_lost() -> None:
    inbox = Inbox(10_000, 10**6)
    received: list[GenerationRequest | Cancellation] = []

    def send() -> None:
        for _ in range(100):
            request = request_of(1)
            inbox.reserve()
            inbox.submit(request)
            inbox.cancel(Cancellation(request))

    def receive() -> None:
        while len(received) < 1600:
            received.extend(inbox.drain(0.5))

    reader = threading.Thread(target=receive)
    reader.start()
    in_threads(8, send)
    reader.join(30)
    assert not reader.is_alive()
    seen: set[int] = set()
    for message in received:
        if isinstance(message, Cancellation):
            assert message.request.request_id in seen
        else:
            seen.add(message.request_id)
    assert len(seen) == 800


def test_drain_waits_for_a_message_but_not_when_closed() -> None:
    inbox = Inbox(1, 10)
    inbox.reserve()
    sender = threading.Timer(0.05, inbox.submit, [request_of(1)])
    sender.start()
    assert len(inbox.drain(30)) == 1
    sender.join()
    inbox.close("Over.")
    started = time.monotonic()
    assert inbox.drain(30) == []
    assert time.monotonic() - started < 15


def test_closing_refuses_new_requests_and_keeps_what_was_sent() -> None:
    inbox = Inbox(10, 100)
    inbox.reserve()
    inbox.reserve()
    inbox.submit(request_of(1))
    inbox.close("The engine is stopping.")
    inbox.close("A second reason.")
    with pytest.raises(EngineStoppedError, match="stopping"):
        inbox.reserve()
    with pytest.raises(EngineStoppedError, match="stopping"):
        inbox.submit(request_of(1))
    assert not inbox.is_empty
    assert len(inbox.drain(0)) == 1
    assert inbox.is_empty


def test_retry_after_is_the_time_between_two_endings(clock: list[float]) -> None:
    inbox = Inbox(2, 100)
    inbox.reserve()
    inbox.reserve()
    for _ in range(10):
        clock[0] += 8
        inbox.release(has_ended=True)
        inbox.reserve()
    assert retry_after(inbox) == pytest.approx(8)


def test_each_refused_caller_is_told_of_a_place_of_its_own(clock: list[float]) -> None:
    inbox = Inbox(2, 100)
    inbox.reserve()
    inbox.reserve()
    clock[0] += 5
    inbox.release(has_ended=True)
    inbox.reserve()
    assert [retry_after(inbox) for _ in range(3)] == pytest.approx([5, 10, 15])
    inbox.release(has_ended=True)  # one of the three finds its place
    inbox.reserve()
    clock[0] += 5
    assert retry_after(inbox) == pytest.approx(3 * 5)
    for _ in range(100):
        last = retry_after(inbox)
    assert last == 120


def test_idle_time_is_not_taken_for_slowness(clock: list[float]) -> None:
    inbox = Inbox(1, 100)
    for _ in range(3):
        inbox.reserve()
        clock[0] += 2
        inbox.release(has_ended=True)
        clock[0] += 3600
    inbox.reserve()
    assert retry_after(inbox) == pytest.approx(2)  # until there is a newer figure


def test_an_engine_that_stands_still_is_seen(clock: list[float]) -> None:
    inbox = Inbox(2, 100)
    inbox.reserve()
    inbox.reserve()
    clock[0] += 1
    inbox.release(has_ended=True)
    inbox.reserve()
    clock[0] += 60
    assert retry_after(inbox) == pytest.approx(61)


def test_requests_that_were_never_sent_say_nothing_of_throughput(clock: list[float]) -> None:
    inbox = Inbox(2, 100)
    inbox.reserve()
    for _ in range(100):
        inbox.reserve()
        inbox.release()
    clock[0] += 7
    inbox.release(has_ended=True)
    inbox.reserve()
    inbox.reserve()
    assert retry_after(inbox) == pytest.approx(7)


def test_retry_after_for_tokens_counts_the_prompts_that_must_go(clock: list[float]) -> None:
    inbox = Inbox(100, 100)
    inbox.reserve()
    clock[0] += 4
    inbox.reserve()
    inbox.release(has_ended=True)
    for _ in range(10):
        inbox.reserve()
        inbox.submit(request_of(10))
    with pytest.raises(EngineOverloadedError) as caught:
        inbox.submit(request_of(30))
    assert caught.value.retry_after == pytest.approx(3 * 4)
