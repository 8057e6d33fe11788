"""ParkBudget: what parking sequences outside the pool may take, and whether it is worth it."""

from __future__ import annotations

# Weight of the newest measurement.
_LEARNING = 0.2
# One slow copy (a pause of the machine) must not end parking for good: nothing would measure it
# again.
_LARGEST_RISE = 4.0


class ParkBudget:
    """Host memory for parked sequences, and what moving a cell there and back costs.

    Owned by the engine thread.

    Args:
        max_bytes: most bytes of parked state at any time; 0 means never to park.

    Attributes:
        num_bytes: bytes of parked state now.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._bytes_per_cell = 0.0
        self._seconds_per_cell = 2e-5  # a guess that the first measurements replace

    @property
    def num_free(self) -> int:
        """Bytes that may still be parked."""
        return self.max_bytes - self.num_bytes

    def allows(self, cells: int, recompute_seconds: float) -> bool:
        """Return whether parking ``cells`` is possible and cheaper than computing them again."""
        fits = self.num_free > 0 and cells * self._bytes_per_cell <= self.num_free
        return fits and cells * self._seconds_per_cell < recompute_seconds

    def park(self, cells: int, num_bytes: int, save_seconds: float) -> None:
        """Count parked state, and learn from what saving it took."""
        self.num_bytes += num_bytes
        self._bytes_per_cell = num_bytes / cells
        seconds = 2 * save_seconds / cells  # restoring copies the same bytes back
        known = self._seconds_per_cell
        self._seconds_per_cell += _LEARNING * (min(seconds, _LARGEST_RISE * known) - known)

    def refuse(self, cells: int) -> None:
        """Learn that the state of ``cells`` was larger than what is free."""
        self._bytes_per_cell = max(self._bytes_per_cell, (self.num_free + 1) / cells)

    def release(self, num_bytes: int) -> None:
        """Count parked state as restored or given up."""
        self.num_bytes -= num_bytes
