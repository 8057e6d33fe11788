"""Slot and ParkedState: where the cells of one sequence are, inside the pool and outside of it."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from avllm.engine.prefix_tree import Node


class Slot:
    """The cells of one sequence: a path in the prefix tree, then a private tail.

    Attributes:
        seq_id: id in llama.cpp's memory.
        node: where its shared path ends.
        salt: cache salt of its tree.
        tail: tokens after it that only this slot has, int32.
        is_active: belongs to a running sequence; otherwise it is cache and may be evicted.
        is_pinned: keeps the shared prefix of a parked sequence: evicted last.
        last_used: larger is more recent.
    """

    __slots__ = ("is_active", "is_pinned", "last_used", "node", "salt", "seq_id", "tail")

    def __init__(self, seq_id: int, node: Node, salt: str) -> None:
        self.seq_id = seq_id
        self.node = node
        self.salt = salt
        self.tail: array[int] = array("i")
        self.is_active = True
        self.is_pinned = False
        self.last_used = 0

    @property
    def length(self) -> int:
        """Tokens of this sequence that are in the cache."""
        return self.node.end + len(self.tail)

    @property
    def shared_end(self) -> int:
        """Tokens from its start whose cells other slots own too."""
        return next((node.end for node in self.node.path() if node.num_paths > 1), 0)

    @property
    def num_private(self) -> int:
        """Cells that would be free without this slot."""
        return self.length - self.shared_end

    @property
    def usefulness(self) -> tuple[bool, int]:
        """Order in which cached slots are evicted, smallest first."""
        return self.is_pinned, self.last_used


@dataclass(slots=True)
class ParkedState:
    """Memory of a preempted sequence, outside the pool.

    Attributes:
        state: saved cells from ``shared`` on.
        shared: positions before it stay in the pool, in ``slot``.
        slot: keeps the shared prefix, or None when there is none.
        num_cells: cells that restoring takes.
    """

    state: bytearray
    shared: int
    slot: Slot | None
    num_cells: int
