"""EngineCore on its thread: waking up, closing, failing; nobody is left waiting."""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Callable, Iterator

import pytest
from fakes import FakeRunner, FakeVocab, Fault

from avllm.config import EngineConfig
from avllm.engine.batch_plan import BatchPlan
from avllm.engine.core import EngineCore
from avllm.engine.request import GenerationRequest, SequenceUpdate
from avllm.errors import EngineStoppedError
from avllm.sampling_params import SamplingParams

# Nothing here takes nearly as long; what hangs fails.
PATIENCE = 20


class Caller:
    """One request, its updates, and the moment of its end."""

    def __init__(self, core: EngineCore, tokens: int = 20, **params: object) -> None:
        self.updates: list[SequenceUpdate] = []
        self.ended = threading.Event()
        settings = SamplingParams(**params)  # type: ignore[arg-type]
        self.request = GenerationRequest(
            prompt_token_ids=array("i", range(tokens)),
            params=settings,
            sink=self._receive,
            max_total_tokens=tokens + (settings.max_tokens or 0),
        )
        core.inbox.reserve()
        core.submit(self.request)

    def _receive(self, _: GenerationRequest, update: SequenceUpdate) -> None:
        assert not self.ended.is_set(), "an update after the end"
        self.updates.append(update)
        if update.finish_reason is not None:
            self.ended.set()

    def result(self) -> SequenceUpdate:
        """Wait for the last update."""
        assert self.ended.wait(PATIENCE), "nobody told the caller"
        return self.updates[-1]


class Gate:
    """Holds every step until it is opened; says when one waits."""

    def __init__(self, runner: FakeRunner) -> None:
        self.waits = threading.Event()
        self._opened = threading.Event()
        runner.before_step = self._pass

    def open(self) -> None:
        """Let steps pass from now on."""
        self._opened.set()

    def _pass(self, _: BatchPlan) -> None:
        self.waits.set()
        assert self._opened.wait(PATIENCE)


@pytest.fixture
def runner() -> FakeRunner:
    """The fake backend of the core."""
    return FakeRunner(512, 4, FakeVocab())


@pytest.fixture
def core(runner: FakeRunner) -> Iterator[EngineCore]:
    """A core on its thread; closed afterwards."""
    core = EngineCore(runner, EngineConfig(max_num_seqs=4), 512, frozenset())
    core.start()
    yield core
    runner.before_step = lambda plan: None
    core.close()
    assert runner.is_closed


def closing(core: EngineCore, grace_seconds: float = 0.0) -> threading.Thread:
    """Close the core on another thread, once it has begun to."""
    thread = threading.Thread(target=core.close, args=(grace_seconds,))
    thread.start()
    deadline = time.monotonic() + PATIENCE
    while core.status == "ready" and time.monotonic() < deadline:
        time.sleep(0.001)
    return thread


def test_requests_of_many_threads_are_all_answered(core: EngineCore) -> None:
    reasons: list[str | None] = []

    def call() -> None:
        for _ in range(10):
            reasons.append(Caller(core, max_tokens=5).result().finish_reason)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert reasons == ["length"] * 80


def test_a_request_to_an_idle_engine_wakes_it(core: EngineCore) -> None:
    started = time.monotonic()
    for _ in range(200):
        Caller(core, max_tokens=1).result()
    # One lost wake-up costs half a second; 200 of them would take 100.
    assert time.monotonic() - started < PATIENCE


def test_cancel_during_a_step_takes_effect_before_the_next(
    core: EngineCore, runner: FakeRunner
) -> None:
    gate = Gate(runner)
    caller = Caller(core, max_tokens=400)
    assert gate.waits.wait(PATIENCE)
    core.cancel(caller.request)
    gate.open()
    assert caller.result().finish_reason == "abort"
    assert len(runner.plans) == 1


def test_flushers_are_called_until_they_are_removed(core: EngineCore) -> None:
    calls: list[int] = []
    core.add_flusher("key", lambda: calls.append(1))
    Caller(core, max_tokens=3).result()
    core.remove_flusher("key")
    core.remove_flusher("key")
    assert calls


def test_close_ends_what_runs_with_an_error(core: EngineCore, runner: FakeRunner) -> None:
    gate = Gate(runner)
    callers = [Caller(core, max_tokens=400) for _ in range(8)]
    assert gate.waits.wait(PATIENCE)
    thread = closing(core)
    gate.open()
    thread.join(PATIENCE)
    assert all(isinstance(caller.result().error, EngineStoppedError) for caller in callers)
    assert core.status == "stopped"
    assert core.inbox.num_requests == 0
    with pytest.raises(EngineStoppedError):
        core.inbox.reserve()


def test_close_with_grace_lets_requests_end(core: EngineCore, runner: FakeRunner) -> None:
    gate = Gate(runner)
    running = Caller(core, max_tokens=50)
    assert gate.waits.wait(PATIENCE)
    queued = [Caller(core, max_tokens=20) for _ in range(6)]  # still in the inbox
    thread = closing(core, grace_seconds=PATIENCE)
    gate.open()
    assert [caller.result().finish_reason for caller in (running, *queued)] == ["length"] * 7
    thread.join(PATIENCE)
    assert core.status == "stopped"


def test_what_came_before_the_close_is_within_its_grace(runner: FakeRunner) -> None:
    core = EngineCore(runner, EngineConfig(max_num_seqs=4), 512, frozenset())
    may_start = threading.Event()
    runner.start = lambda: may_start.wait(PATIENCE) and None  # type: ignore[method-assign]
    core.start()
    caller = Caller(core, max_tokens=5)  # the engine has not looked into its inbox yet
    thread = closing(core, grace_seconds=PATIENCE)
    may_start.set()
    assert caller.result().finish_reason == "length"
    thread.join(PATIENCE)
    assert core.status == "stopped"


def test_a_second_close_ends_the_grace_of_the_first(core: EngineCore, runner: FakeRunner) -> None:
    gate = Gate(runner)
    caller = Caller(core, max_tokens=400)
    assert gate.waits.wait(PATIENCE)
    thread = closing(core, grace_seconds=3600)
    second = threading.Thread(target=core.close)
    second.start()
    while not runner.is_aborted:
        time.sleep(0.001)
    gate.open()
    for closer in (thread, second):
        closer.join(PATIENCE)
        assert not closer.is_alive()
    assert isinstance(caller.result().error, EngineStoppedError)


def test_close_is_idempotent(core: EngineCore) -> None:
    core.close()
    core.close(1)
    assert core.status == "stopped"


@pytest.mark.parametrize("place", ["run", "schedule", "computed", "finish", "start"])
def test_a_bug_in_the_engine_tells_every_caller(
    runner: FakeRunner, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = EngineCore(runner, EngineConfig(max_num_seqs=4), 512, frozenset())

    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("a bug")

    if place == "run":
        runner.faults.append(Fault(error=RuntimeError("a bug")))
    elif place == "start":
        monkeypatch.setattr(runner, "start", fail)
    else:
        monkeypatch.setattr(core.scheduler, place, fail)
    callers = [Caller(core, max_tokens=10) for _ in range(6)]
    core.start()
    errors = [caller.result().error for caller in callers]
    assert all(isinstance(error, EngineStoppedError) for error in errors)
    assert all("a bug" in str(error) for error in errors)
    core.close()
    assert core.status == "failed"
    assert runner.is_closed
    assert core.inbox.num_requests == 0
    with pytest.raises(EngineStoppedError, match="a bug"):
        core.inbox.reserve()


def test_the_heartbeat_stops_with_a_step_that_hangs(core: EngineCore, runner: FakeRunner) -> None:
    def eventually(holds: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + PATIENCE
        while not holds() and time.monotonic() < deadline:
            time.sleep(0.01)
        return holds()

    gate = Gate(runner)
    caller = Caller(core, max_tokens=5)
    assert gate.waits.wait(PATIENCE)
    assert eventually(lambda: core.heartbeat_age > 1)
    gate.open()
    caller.result()
    assert eventually(lambda: core.heartbeat_age < 1)
