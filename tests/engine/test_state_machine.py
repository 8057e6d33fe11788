"""The whole engine below its thread, driven at random against the fake backend.

The harness checks after every turn: cells counted are cells used; every sequence's cells are its
tokens; no cell of another tenant; each request in one state and ended once; outputs are the fake
model's; age goes before; the oldest gets on.

AVLLM_STATE_MACHINE_EXAMPLES sets how many histories are tried: thousands for a night.
"""

from __future__ import annotations

import os
from typing import Any

from fakes import FakeVocab, Fault
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from .harness import Harness, Job

_VOCAB = FakeVocab(40, eog_tokens={7})
# Prompts are beginnings of a few long texts, so that they share prefixes of any length.
_TEXTS = [[(seed * i * i + i) % 40 for i in range(200)] for seed in (1, 1, 3)]
_TEXTS[1][70:] = [39] * 130

prompts = st.builds(
    lambda text, length, own: [*text[:length], *own],
    st.sampled_from(_TEXTS),
    st.integers(0, 150),
    st.lists(st.integers(0, 39), max_size=3),
).filter(bool)

requests = st.fixed_dictionaries(
    {
        "prompt": prompts,
        "max_tokens": st.one_of(st.none(), st.integers(0, 150)),
        "n": st.sampled_from([1, 1, 1, 2, 3]),
        "salt": st.sampled_from(["", "", "tenant"]),
        "ignore_eos": st.booleans(),
        "limit": st.integers(160, 400),
    }
)


class EngineMachine(RuleBasedStateMachine):
    """Requests come, go and meet trouble, while the core is turned by hand."""

    @initialize(
        num_cells=st.integers(160, 400),
        max_num_seqs=st.integers(1, 5),
        memory=st.sampled_from(["shared", "shared", "shared", "recurrent", "prefix_cache=False"]),
        num_cached_ids=st.sampled_from([250, 3, 0]),
        park_bytes=st.sampled_from([0, 1500, 2**20]),
    )
    def begin(
        self,
        num_cells: int,
        max_num_seqs: int,
        memory: str,
        num_cached_ids: int,
        park_bytes: int,
    ) -> None:
        """Make an engine of some size on memory of some kind."""
        self.harness = Harness(
            num_cells,
            max_num_seqs=max_num_seqs,
            max_ids=max_num_seqs + 1 + num_cached_ids,
            can_cut=memory != "recurrent",
            prefix_cache=memory != "prefix_cache=False",
            vocab=_VOCAB,
        )
        self.harness.scheduler.park_budget.max_bytes = park_bytes

    @property
    def live(self) -> list[Job]:
        """Requests that have not ended."""
        return [job for job in self.harness.jobs if not job.is_finished]

    @rule(arriving=st.lists(requests, min_size=1, max_size=4))
    def add(self, arriving: list[dict[str, Any]]) -> None:
        """Submit some requests."""
        for request in arriving:
            self.harness.add(**request)

    @rule(data=st.data())
    def continue_conversation(self, data: st.DataObject) -> None:
        """Submit a finished request's text and some more, as the next turn of a chat does."""
        ended = [job for job in self.harness.jobs if job.is_finished]
        if ended:
            job = data.draw(st.sampled_from(ended))
            prompt = [*job.prompt, *job.tokens(), 5][:150]
            self.harness.add(prompt, salt=job.request.cache_salt, max_tokens=20)

    @rule(count=st.integers(1, 30))
    def turn(self, count: int) -> None:
        """Let the engine work."""
        self.harness.turn(count)

    @precondition(lambda self: self.live)
    @rule(data=st.data(), index=st.sampled_from([None, 0, 1]))
    def cancel(self, data: st.DataObject, index: int | None) -> None:
        """Cancel a request or one of its sequences: gone with the next turn."""
        job = data.draw(st.sampled_from(self.live))
        self.harness.cancel(job, index)
        self.harness.turn()
        indices = range(job.params.n) if index is None else [index]
        assert all(job.endings(i) for i in indices if i < job.params.n)
        mine = [s for s in self.harness.scheduler.sequences() if s.request is job.request]
        assert not [s for s in mine if s.index in indices]

    @precondition(lambda self: self.live)
    @rule(data=st.data(), queue_only=st.booleans())
    def expire(self, data: st.DataObject, queue_only: bool) -> None:
        """Let a deadline pass: of the whole request, or of its wait in the queue."""
        job = data.draw(st.sampled_from(self.live))
        if queue_only:
            job.request.queue_deadline = 0.0
        else:
            job.request.deadline = 0.0
        self.harness.turn()
        assert queue_only or job.is_finished

    @rule(chunk=st.integers(1, 64), token_seconds=st.sampled_from([0.0, 1e6]))
    def change_costs(self, chunk: int, token_seconds: float) -> None:
        """Change the prompt budget, and whether parking is cheaper than computing again."""
        self.harness.budget.chunk = chunk
        self.harness.budget.token_seconds = token_seconds

    @invariant()
    def nothing_contradicts_itself(self) -> None:
        """Check also between rules."""
        if hasattr(self, "harness"):
            self.harness.check()

    def teardown(self) -> None:
        """Without further trouble everything ends, within a bound, and nothing is left."""
        if hasattr(self, "harness"):
            self.harness.runner.faults.clear()
            self.harness.drain()
            self.harness.check_drained()


class FaultyEngineMachine(EngineMachine):
    """The same with a backend that fails."""

    @rule(
        faults=st.lists(
            st.one_of(
                st.builds(Fault, status=st.sampled_from([0, 1, 1, 2, 2, -1, -2, -3])),
                st.builds(Fault, nan=st.frozensets(st.integers(0, 3), min_size=1, max_size=2)),
            ),
            min_size=1,
            max_size=3,
        )
    )
    def break_steps(self, faults: list[Fault]) -> None:
        """Let the next steps go wrong."""
        self.harness.runner.faults.extend(faults)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        """Let llama.cpp refuse every batch with rows of one request."""
        refused = data.draw(st.sampled_from(self.live)).request
        self.harness.runner.refuses = lambda rows: rows.sequence.request is refused

    @rule(saves=st.integers(0, 2), restores=st.integers(0, 2))
    def break_parking(self, saves: int, restores: int) -> None:
        """Let saving and restoring sequences fail."""
        self.harness.memory.fail_saves = saves
        self.harness.memory.fail_restores = restores


_SETTINGS = settings(
    max_examples=int(os.environ.get("AVLLM_STATE_MACHINE_EXAMPLES", "60")),
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
TestEngineMachine = EngineMachine.TestCase
TestEngineMachine.settings = _SETTINGS
TestFaultyEngineMachine = FaultyEngineMachine.TestCase
TestFaultyEngineMachine.settings = _SETTINGS
