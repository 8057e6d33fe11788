"""FakeMemory: the cells of llama.cpp's unified KV cache, without a model."""

from __future__ import annotations

import struct
from dataclasses import dataclass

MAX_SEQ_IDS = 256
_SAVED = struct.Struct("iii")  # position, token, salt


@dataclass(eq=False)
class Cell:
    """One cell: its position, what was computed into it, and how many sequences own it."""

    position: int
    token: int
    salt: int
    num_owners: int = 0


class FakeMemory:
    """Cells of a unified KV cache with llama.cpp's rules, its refusals and its asserts.

    Args:
        num_cells: size of the pool.
        n_seq_max: ids below it can stand in a batch and be saved.
        can_cut: False behaves like a recurrent state: no part of a sequence can be removed.

    Attributes:
        num_used: cells that at least one sequence owns.
        fail_saves, fail_restores: how many of the next ones fail.
    """

    def __init__(self, num_cells: int, n_seq_max: int, *, can_cut: bool = True) -> None:
        self.num_cells = num_cells
        self.n_seq_max = n_seq_max
        self.can_cut = can_cut
        self.num_used = 0
        self.fail_saves = 0
        self.fail_restores = 0
        self._sequences: dict[int, dict[int, Cell]] = {}  # id -> position -> cell

    def owned(self, seq_id: int) -> list[Cell]:
        """Return the cells of a sequence."""
        return list(self._sequences.get(seq_id, {}).values())

    def tokens(self, seq_id: int) -> list[int]:
        """Return the tokens of a sequence; its positions must be 0 to n - 1, each once."""
        cells = self._sequences.get(seq_id, {})
        return [cells[position].token for position in range(len(cells))]  # a hole: KeyError

    def owners(self) -> set[int]:
        """Return every sequence id that owns a cell."""
        return {seq_id for seq_id, cells in self._sequences.items() if cells}

    def seq_pos_max(self, seq_id: int) -> int:
        """Return the largest position of a sequence, -1 when it is empty."""
        self._check_id(seq_id)
        return max(self._sequences.get(seq_id, ()), default=-1)

    def seq_rm(self, seq_id: int, start: int = -1, end: int = -1) -> bool:
        """Remove positions [start, end); cells without an owner become free."""
        self._check_id(seq_id)
        cells = self._range(seq_id, start, end)
        if not self.can_cut and cells and len(cells) != len(self.owned(seq_id)):
            return False
        for cell in cells:
            del self._sequences[seq_id][cell.position]
            cell.num_owners -= 1
            self.num_used -= cell.num_owners == 0
        return True

    def seq_cp(self, source: int, target: int, start: int = -1, end: int = -1) -> None:
        """Share cells; what llama.cpp asserts or silently corrupts is an AssertionError here."""
        self._check_id(source)
        self._check_id(target)
        assert self.can_cut, "this memory cannot be shared"
        assert source != target
        assert not self._range(target, start, end), f"seq_cp onto cells of {target}"
        for cell in self._range(source, start, end):
            self.put(target, cell)

    def save_sequence(self, seq_id: int) -> bytearray:
        """Return the cells of a sequence as bytes."""
        self._check_batch_id(seq_id)
        if self.fail_saves:
            self.fail_saves -= 1
            raise MemoryError
        state = bytearray()
        for cell in sorted(self.owned(seq_id), key=lambda cell: cell.position):
            state += _SAVED.pack(cell.position, cell.token, cell.salt)
        return state

    def restore_sequence(self, seq_id: int, state: bytearray) -> bool:
        """Replace what a sequence holds; False, and it is empty, when there is no room."""
        self._check_batch_id(seq_id)
        self.seq_rm(seq_id)
        if self.fail_restores:
            self.fail_restores -= 1
            return False
        cells = [Cell(*values) for values in _SAVED.iter_unpack(state)]
        if len(cells) > self.num_cells - self.num_used:
            return False
        for cell in cells:
            self.put(seq_id, cell)
        return True

    def clear(self) -> None:
        """Forget every sequence."""
        self._sequences.clear()
        self.num_used = 0

    def put(self, seq_id: int, cell: Cell) -> None:
        """Let a sequence own a cell, as computing its token does."""
        self.num_used += cell.num_owners == 0
        cell.num_owners += 1
        self._sequences.setdefault(seq_id, {})[cell.position] = cell

    def _range(self, seq_id: int, start: int, end: int) -> list[Cell]:
        low, high = max(start, 0), end if end >= 0 else 2**31
        return [cell for cell in self.owned(seq_id) if low <= cell.position < high]

    def _check_id(self, seq_id: int) -> None:
        assert 0 <= seq_id < (MAX_SEQ_IDS if self.can_cut else self.n_seq_max), seq_id

    def _check_batch_id(self, seq_id: int) -> None:
        assert 0 <= seq_id < self.n_seq_max, f"{seq_id} cannot be saved"
