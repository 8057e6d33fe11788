"""KVCache: the exact ledger of the shared cells, and who may use which sequence id.

Every token in the cache is one cell, however many sequences share it: cells are either in the
prefix tree (shareable) or in the private tail of a slot. The ledger issues the memory calls
(``seq_rm``, ``seq_cp``, save, restore) in the order that keeps llama.cpp's own bookkeeping equal.

Ids below ``max_active`` can stand in a batch; one scratch id follows, used for saving; the rest,
up to 255, only hold the cells of finished sequences.
"""

from __future__ import annotations

import itertools
from array import array
from dataclasses import dataclass
from typing import Protocol

from avllm.engine.prefix_tree import Node, PrefixTree


class Memory(Protocol):
    """Memory calls of ``avllm.llama.Context``; the fake backend has the same."""

    def seq_rm(self, seq_id: int, start: int = -1, end: int = -1) -> bool: ...
    def seq_cp(self, source: int, target: int, start: int = -1, end: int = -1) -> None: ...
    def save_sequence(self, seq_id: int) -> bytearray: ...
    def restore_sequence(self, seq_id: int, state: bytearray) -> bool: ...
    def clear(self) -> None: ...


class Slot:
    """The cells of one sequence: a path in the prefix tree, then a private tail.

    Attributes:
        seq_id: id in llama.cpp's memory.
        node: where its shared path ends.
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


class KVCache:
    """Ledger of one pool of cells.

    Owned by the engine thread.

    Args:
        memory: the context that holds the cells.
        num_cells: size of the pool.
        max_active: sequences that may run at once (ids 0 to max_active - 1).
        max_ids: sequence ids in all, 256 in llama.cpp.
        can_share: False for memory that cannot be cut (recurrent, hybrid): nothing is shared or
            kept, every sequence stands alone.
    """

    def __init__(
        self,
        memory: Memory,
        num_cells: int,
        max_active: int,
        *,
        max_ids: int = 256,
        can_share: bool = True,
    ) -> None:
        self.memory = memory
        self.num_cells = num_cells
        self.max_active = max_active
        self.can_share = can_share
        self.tree = PrefixTree()
        self._num_tail = 0
        self._active_ids = list(range(max_active - 1, -1, -1))
        self._scratch_id = max_active
        self._cached_ids = list(range(max_ids - 1, max_active, -1)) if can_share else []
        self._cached: set[Slot] = set()
        self._clock = itertools.count(1)

    @property
    def num_used(self) -> int:
        """Cells that hold a token."""
        return self.tree.num_cells + self._num_tail

    @property
    def num_free(self) -> int:
        """Cells that hold nothing."""
        return self.num_cells - self.num_used

    @property
    def num_evictable(self) -> int:
        """Used cells that no running sequence needs."""
        return self.tree.num_idle

    @property
    def has_free_id(self) -> bool:
        """True when one more sequence can run."""
        return bool(self._active_ids)

    def match_length(self, tokens: array[int], salt: str) -> tuple[int, int]:
        """Return (tokens of the prefix in the cache, those of them that are evictable now)."""
        if not self.can_share:
            return 0, 0
        node, length = self.tree.match(tokens, salt)
        if node is None:
            return 0, 0
        idle = sum(
            min(step.end, length) - step.start for step in node.path() if step.num_active == 0
        )
        return length, idle

    def open(self, tokens: array[int], salt: str, max_shared: int) -> Slot:
        """Give a sequence an id and the cells of its longest cached prefix, at most max_shared.

        Call it only while ``has_free_id``.
        """
        node, length = self.tree.root(salt), 0
        if self.can_share:
            node, length = self.tree.descend(node, tokens)
            length = min(length, max_shared)
            while node.parent is not None and node.start >= length:
                node = node.parent
            node = self.tree.split(node, length)
        slot = Slot(self._active_ids.pop(), node, salt)
        if length:
            source = node.any_slot()
            source.last_used = next(self._clock)
            self.memory.seq_cp(source.seq_id, slot.seq_id, 0, length)
        self.tree.enter(node, slot)
        return slot

    def append(self, slot: Slot, tokens: array[int]) -> None:
        """Count tokens that a step has computed at the end of ``slot``."""
        slot.tail.extend(tokens)
        self._num_tail += len(tokens)

    def commit(self, slot: Slot) -> None:
        """Move the private tail into the tree, so that others can share it.

        Where the tree has the same tokens already, their cells are used and ours are freed.
        """
        if not slot.tail or not self.can_share:
            return
        start, tail = slot.node.end, slot.tail
        self._num_tail -= len(tail)
        slot.tail = array("i")
        node, known = self.tree.descend(slot.node, tail)
        if known:
            node = self.tree.split(node, start + known)
            source = node.any_slot()
            self.memory.seq_rm(slot.seq_id, start, start + known)
            self.memory.seq_cp(source.seq_id, slot.seq_id, start, start + known)
            self.tree.move(slot, node)
        if known < len(tail):
            self.tree.append(slot, tail[known:])

    def close(self, slot: Slot, *, keep: bool) -> None:
        """End the use of a running slot; ``keep`` leaves its cells as cache for others."""
        if not (keep and self.can_share):
            self._release(slot)
            return
        self.commit(slot)
        self._retire(slot)

    def ensure_free(self, count: int) -> bool:
        """Evict cache, least recently used first, until ``count`` cells are free, if it can be."""
        missing = count - self.num_free
        if missing > 0:
            for slot in sorted(self._cached, key=lambda slot: (slot.is_pinned, slot.last_used)):
                missing -= self._evict(slot, missing)
                if missing <= 0:
                    break
        return self.num_free >= count

    def private_cells(self, slot: Slot) -> int:
        """Return how many cells would be free without ``slot``."""
        return slot.length - self._shared_end(slot)

    def park(self, slot: Slot) -> ParkedState:
        """Save the private cells of a running slot outside the pool and free them.

        The prefix that others use too stays where it is.
        """
        shared = self._shared_end(slot)
        num_cells = slot.length - shared
        if shared:
            self.memory.seq_cp(slot.seq_id, self._scratch_id, shared, -1)
            state = self.memory.save_sequence(self._scratch_id)
            self.memory.seq_rm(self._scratch_id)
            self._cut(slot, shared)
            self._retire(slot, pinned=True)
            return ParkedState(state, shared, slot, num_cells)
        state = self.memory.save_sequence(slot.seq_id)
        self._release(slot)
        return ParkedState(state, 0, None, num_cells)

    def restore(self, parked: ParkedState, tokens: array[int], salt: str) -> Slot | None:
        """Bring a parked sequence back: the same cells, byte for byte.

        Call it only while ``has_free_id`` and ``num_cells`` cells are free.

        Args:
            tokens: the tokens whose cells were parked, shared ones included.

        Returns:
            Its new slot, or None when its shared prefix was evicted meanwhile or the memory
            refused: then it must be computed again.
        """
        prefix = parked.slot
        if prefix is not None and prefix.length < parked.shared:
            self.drop(parked)
            return None
        slot = Slot(self._active_ids.pop(), prefix.node if prefix else self.tree.root(salt), salt)
        restored = self.memory.restore_sequence(slot.seq_id, parked.state)
        if not restored:
            self.memory.seq_rm(slot.seq_id)
            self._active_ids.append(slot.seq_id)
            self.drop(parked)
            return None
        if prefix is not None:  # after restoring, which empties the target first
            self.memory.seq_cp(prefix.seq_id, slot.seq_id, 0, parked.shared)
        self.tree.enter(slot.node, slot)
        self.append(slot, tokens[parked.shared :])
        self.drop(parked)
        return slot

    def drop(self, parked: ParkedState) -> None:
        """Give up a parked state."""
        if parked.slot is not None and parked.slot in self._cached:
            self._release(parked.slot)
        parked.slot = None
        parked.state = bytearray()

    def reset(self) -> None:
        """Forget everything, after memory was lost; slots from before must not be used again."""
        self.memory.clear()
        max_ids = self._scratch_id + 1 + len(self._cached_ids) + len(self._cached)
        self.__init__(  # type: ignore[misc]
            self.memory, self.num_cells, self.max_active, max_ids=max_ids, can_share=self.can_share
        )

    def check_integrity(self) -> None:
        """Raise AssertionError when the ledger contradicts itself (for tests and debugging)."""
        nodes = list(self.tree.nodes())
        assert self.tree.num_cells == sum(len(node.tokens) for node in nodes)
        assert self.tree.num_idle == sum(len(n.tokens) for n in nodes if n.num_active == 0)
        for node in nodes:
            below = len(node.slots) + sum(child.num_paths for child in node.children.values())
            assert node.num_paths == below > 0
        assert 0 <= self.num_used <= self.num_cells
        assert all(slot.node.slots >= {slot} and not slot.tail for slot in self._cached)

    def _shared_end(self, slot: Slot) -> int:
        return next((node.end for node in slot.node.path() if node.num_paths > 1), 0)

    def _cut(self, slot: Slot, length: int) -> None:
        # Shorten a slot to `length`, where a node that others use too ends.
        self.memory.seq_rm(slot.seq_id, length, -1)
        self._num_tail -= len(slot.tail)
        slot.tail = array("i")
        node = slot.node
        while node.end > length and node.parent is not None:
            node = node.parent
        self.tree.move(slot, node)

    def _retire(self, slot: Slot, *, pinned: bool = False) -> None:
        # From running to cache: the id that can stand in a batch is freed for others.
        if slot.node.num_paths > 1 and not pinned:
            self._release(slot)  # another slot has all of it
            return
        self.tree.set_active(slot, False)
        if not self._cached_ids:
            self._release(min(self._cached, key=lambda slot: (slot.is_pinned, slot.last_used)))
        active_id, slot.seq_id = slot.seq_id, self._cached_ids.pop()
        self.memory.seq_cp(active_id, slot.seq_id)
        self.memory.seq_rm(active_id)
        self._active_ids.append(active_id)
        slot.last_used = next(self._clock)
        slot.is_pinned = pinned
        self._cached.add(slot)
        self._drop_prefixes(slot)

    def _drop_prefixes(self, slot: Slot) -> None:
        # Cached slots that end on the way to this one hold nothing of their own any more.
        for node in list(slot.node.path()):
            for other in list(node.slots):
                if other is not slot and other in self._cached and not other.is_pinned:
                    self._release(other)

    def _release(self, slot: Slot) -> None:
        self.memory.seq_rm(slot.seq_id)
        self._num_tail -= len(slot.tail)
        slot.tail = array("i")
        self.tree.leave(slot)
        if slot in self._cached:
            self._cached.discard(slot)
            self._cached_ids.append(slot.seq_id)
        else:
            self._active_ids.append(slot.seq_id)

    def _evict(self, slot: Slot, count: int) -> int:
        # Free up to `count` cells from the end of a cached slot, as far as they are its own.
        freed = 0
        while freed < count:
            node = slot.node
            if node.parent is None or node.num_paths > 1:
                self._release(slot)  # what is left belongs to others
                break
            here = min(count - freed, len(node.tokens))
            self.memory.seq_rm(slot.seq_id, node.end - here, -1)
            if here < len(node.tokens):
                self.tree.trim(node, here)
            else:
                self.tree.move(slot, node.parent)
            freed += here
        if slot in self._cached and slot.node.parent is None:
            self._release(slot)
        return freed
