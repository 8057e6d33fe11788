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
from operator import attrgetter

from avllm.engine.memory import Memory
from avllm.engine.prefix_tree import PrefixTree
from avllm.engine.slot import ParkedState, Slot
from avllm.errors import DecodeError


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
        self.max_ids = max_ids
        self.can_share = can_share
        self._scratch_id = max_active
        self._clock = itertools.count(1)
        self._start_empty()

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
        node, length = self.tree.match(tokens, salt)
        return length, 0 if node is None else node.idle_cells(length)

    def open(self, tokens: array[int], salt: str, max_shared: int) -> Slot:
        """Give a sequence an id and the cells of its longest cached prefix, at most max_shared.

        Call it only while ``has_free_id``.
        """
        node, length = self.tree.descend(self.tree.root(salt), tokens)
        length = min(length, max_shared)
        node = self.tree.split(node.at(length), length)
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
        if keep and self.can_share:
            self.commit(slot)
            self._retire(slot)
        else:
            self._release(slot)

    def ensure_free(self, count: int) -> bool:
        """Evict cache, least recently used first, until ``count`` cells are free, if it can be."""
        missing = count - self.num_free
        if missing > 0:
            for slot in sorted(self._cached, key=attrgetter("usefulness")):
                missing -= self._evict(slot, missing)
                if missing <= 0:
                    break
        return self.num_free >= count

    def rollback(self, slot: Slot) -> bool:
        """Cut what an aborted step left behind the counted tokens of a running slot.

        Returns:
            False when this memory cannot be cut: the slot must be closed, with ``keep=False``.
        """
        return self.memory.seq_rm(slot.seq_id, slot.length, -1)

    def park(self, slot: Slot, max_bytes: int) -> ParkedState | None:
        """Save the private cells of a running slot outside the pool and free them.

        The prefix that others use too stays where it is.

        Returns:
            None, and the slot as it was, when its state takes more than ``max_bytes`` or there
            is no memory for it.
        """
        shared = slot.shared_end
        try:
            parked = ParkedState(self._save(slot, shared), shared, None, slot.num_private)
        except (MemoryError, DecodeError):
            return None
        if len(parked.state) > max_bytes:
            return None
        if shared:
            self._cut(slot, shared)
            self._retire(slot, pinned=True)
            parked.slot = slot
        else:
            self._release(slot)
        return parked

    def cells_to_restore(self, parked: ParkedState) -> int:
        """Return how many free or evictable cells ``restore`` takes."""
        prefix = parked.slot  # evictable until it runs again
        return parked.num_cells + (prefix.node.idle_cells(prefix.length) if prefix else 0)

    def restore(self, parked: ParkedState, tokens: array[int], salt: str) -> Slot | None:
        """Bring a parked sequence back: the same cells, byte for byte. Uses ``parked`` up.

        Call it only while ``has_free_id``.

        Args:
            tokens: the tokens whose cells were parked, shared ones included.

        Returns:
            Its new slot, or None when its shared prefix was evicted meanwhile or the memory
            refused: then it must be computed again.
        """
        prefix = parked.slot
        if prefix is not None:
            prefix.last_used = next(self._clock)  # making room must not take it, if it can help it
        made_room = self.ensure_free(parked.num_cells)
        if not made_room or (prefix is not None and prefix.length < parked.shared):
            self.drop(parked)
            return None
        seq_id = self._active_ids.pop()
        if not self.memory.restore_sequence(seq_id, parked.state):
            self.memory.seq_rm(seq_id)
            self._active_ids.append(seq_id)
            self.drop(parked)
            return None
        slot = Slot(seq_id, prefix.node if prefix else self.tree.root(salt), salt)
        if prefix is not None:  # after restoring, which empties the target first
            self.memory.seq_cp(prefix.seq_id, seq_id, 0, parked.shared)
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
        self._start_empty()

    def _start_empty(self) -> None:
        self.tree = PrefixTree()
        self._num_tail = 0
        self._active_ids = list(range(self.max_active - 1, -1, -1))
        self._cached_ids = list(range(self.max_ids - 1, self._scratch_id, -1))
        self._cached: set[Slot] = set()

    def _save(self, slot: Slot, start: int) -> bytearray:
        if not start:
            return self.memory.save_sequence(slot.seq_id)
        # A part cannot be saved: an id that owns just that part can.
        self.memory.seq_cp(slot.seq_id, self._scratch_id, start, -1)
        try:
            return self.memory.save_sequence(self._scratch_id)
        finally:
            self.memory.seq_rm(self._scratch_id)

    def _cut(self, slot: Slot, length: int) -> None:
        # Shorten a slot to `length`, where a node that others use too ends.
        self.memory.seq_rm(slot.seq_id, length, -1)
        self._num_tail -= len(slot.tail)
        slot.tail = array("i")
        self.tree.move(slot, slot.node.at(length))

    def _retire(self, slot: Slot, *, pinned: bool = False) -> None:
        # From running to cache: the id that can stand in a batch is freed for others.
        if not slot.length or (slot.node.num_paths > 1 and not pinned):
            self._release(slot)  # it has nothing, or another slot has all of it
            return
        self._drop_prefixes(slot)
        if not self._cached_ids and self._cached:
            self._release(min(self._cached, key=attrgetter("usefulness")))
        if not self._cached_ids:
            self._release(slot)
            return
        self.tree.set_active(slot, False)
        active_id, slot.seq_id = slot.seq_id, self._cached_ids.pop()
        self.memory.seq_cp(active_id, slot.seq_id)
        self.memory.seq_rm(active_id)
        self._active_ids.append(active_id)
        slot.last_used = next(self._clock)
        slot.is_pinned = pinned
        self._cached.add(slot)

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
