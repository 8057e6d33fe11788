"""SequenceTimes: when what happened to a sequence."""

from __future__ import annotations

import time
from dataclasses import dataclass

from avllm.outputs import RequestTimings


@dataclass(slots=True)
class SequenceTimes:
    """Marks of ``time.perf_counter()`` from which the timings are derived."""

    arrival: float
    first_step: float | None = None
    first_token: float | None = None
    last_token: float | None = None
    steps: int = 0
    preemptions: int = 0

    def timings(self) -> RequestTimings:
        """Return the durations between the marks, in seconds."""
        now = time.perf_counter()
        first_step = self.first_step or now
        first_token = self.first_token or now
        return RequestTimings(
            queue_seconds=first_step - self.arrival,
            prefill_seconds=first_token - first_step,
            decode_seconds=(self.last_token or first_token) - first_token,
            steps=self.steps,
            preemptions=self.preemptions,
        )
