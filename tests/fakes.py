"""A backend without a model: memory as llama.cpp's unified cache behaves, tokens from a hash.

The next token is a pure function of the tokens that are in memory for a sequence, so a wrong,
missing or foreign cell shows in the output; ``expected_tokens`` computes the same from the prompt.
"""

from __future__ import annotations

import struct
import time
import zlib
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from avllm.engine.batch_plan import BatchPlan, Rows, Sampled
from avllm.engine.model_runner import StepResult
from avllm.errors import DecodeError
from avllm.llama import DecodeStatus
from avllm.sampling_params import SamplingParams

MAX_SEQ_IDS = 256
_SAVED = struct.Struct("iii")  # position, token, salt


def next_token(tokens: Iterable[int], index: int, vocab_size: int) -> int:
    """Return the token that follows ``tokens`` in sequence ``index`` of a request."""
    return zlib.crc32(array("i", tokens).tobytes(), index + 1) % vocab_size


def expected_tokens(
    prompt: Iterable[int], params: SamplingParams, limit: int, vocab: FakeVocab, index: int = 0
) -> tuple[list[int], str]:
    """Return the tokens a request must give and why it ends; ``limit`` is the longest sequence."""
    tokens, generated = list(prompt), list[int]()
    most = limit - len(tokens) if params.max_tokens is None else params.max_tokens
    while len(generated) < min(most, limit - len(tokens)):
        token = next_token([*tokens, *generated], index, vocab.size)
        ends = token in vocab.eog_tokens and not params.ignore_eos
        if ends or token in params.stop_token_ids:
            return generated, "stop"
        generated.append(token)
    return generated, "length"


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
        assert cells.keys() == set(range(len(cells))), f"holes in {seq_id}"
        return [cells[position].token for position in range(len(cells))]

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

    def compute(self, rows: Rows, salt: int, count: int) -> None:
        """Write the first ``count`` cells of rows."""
        slot = rows.sequence.slot
        assert slot is not None
        for position in range(rows.start, rows.start + count):
            token = rows.sequence.tokens[position]
            self.put(slot.seq_id, Cell(position, token, salt))

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


@dataclass(frozen=True)
class Fault:
    """What goes wrong in one step.

    Attributes:
        status: 1 no cells; 2 aborted, half of the rows stay; -1 refused, nothing changed;
            -2, -3 failed half way. 0: the step succeeds.
        nan: the sequences, by place in the step, whose logits are not finite.
        error: raised instead, a bug in the engine's own code.
    """

    status: int = 0
    nan: frozenset[int] = frozenset()
    error: BaseException | None = None


class FakeRunner:
    """Computes steps on a FakeMemory.

    Attributes:
        plans: every plan it was given, as (request id, index, start, count) per rows.
        faults: consumed one a step; then no more go wrong.
        refuses: rows for which llama.cpp calls the batch invalid (-1), whatever else is in it.
        before_step: called at the start of each step (to hold it, or to act in the middle).
        victims: (request id, index) of the sequences that may end with an error after a fault.
        num_shortages: steps that did not fit the memory: never, unless a test asks for it.
    """

    def __init__(
        self, num_cells: int, max_num_seqs: int, vocab: FakeVocab, *, can_cut: bool = True
    ) -> None:
        self.memory = FakeMemory(num_cells, max_num_seqs + 1, can_cut=can_cut)
        self.vocab = vocab
        self.plans: list[list[tuple[int, int, int, int]]] = []
        self.faults: deque[Fault] = deque()
        self.refuses: Callable[[Rows], bool] = lambda rows: False
        self.before_step: Callable[[BatchPlan], None] = lambda plan: None
        self.victims: set[tuple[int, int]] = set()
        self.num_shortages = 0
        self.is_aborted = False
        self.is_closed = False
        self._refused_alone: Counter[tuple[int, int, int]] = Counter()
        self._salts: dict[str, int] = {}

    def start(self) -> None:
        """Prepare for steps: nothing to do."""

    def run(self, plan: BatchPlan) -> StepResult:
        """Compute a step, or fail as scripted."""
        started = time.perf_counter()
        self.plans.append([(*_name(rows), rows.start, rows.count) for rows in plan.rows])
        self.before_step(plan)
        fault = self.faults.popleft() if self.faults else Fault()
        if fault.error is not None:
            raise fault.error
        self._note_victims(plan, fault)
        status = DecodeStatus.ABORTED if self.is_aborted else self._decode(plan, fault)
        sampled: list[Sampled | None] = []
        if status is DecodeStatus.OK:
            sampled = [self._sample(r, i in fault.nan) for i, r in enumerate(plan.rows)]
        return StepResult(status, sampled, time.perf_counter() - started)

    def request_abort(self) -> None:
        """Make steps end with ABORTED from now on."""
        self.is_aborted = True

    def close(self) -> None:
        """Note that the engine let go of the backend."""
        self.is_closed = True

    def _note_victims(self, plan: BatchPlan, fault: Fault) -> None:
        names = [_name(rows) for rows in plan.rows]
        alone = len(names) == 1
        if fault.status < -1 or (fault.status == -1 and alone):
            self.victims.update(names)  # a refused batch is tried row by row
        if fault.status == 1 and alone:
            place = (*names[0], len(plan.rows[0].sequence.tokens))
            self._refused_alone[place] += 1
            if self._refused_alone[place] > 2:
                self.victims.update(names)  # a third time without a token in between
        self.victims.update(name for i, name in enumerate(names) if i in fault.nan)
        self.victims.update(_name(rows) for rows in plan.rows if self.refuses(rows))

    def _decode(self, plan: BatchPlan, fault: Fault) -> DecodeStatus:
        self._check(plan)
        if fault.status == -1:
            raise DecodeError("scripted", -1)
        is_short = plan.num_tokens > self.memory.num_cells - self.memory.num_used
        self.num_shortages += is_short
        if is_short or fault.status == 1:
            return DecodeStatus.NO_KV_SLOT
        for position, rows in enumerate(plan.rows):
            whole = fault.status == 0 or position < len(plan.rows) // 2
            salt = self._salts.setdefault(rows.sequence.request.cache_salt, len(self._salts))
            self.memory.compute(rows, salt, rows.count if whole else rows.count // 2)
        if fault.status < 0:
            raise DecodeError("scripted", fault.status)
        return DecodeStatus.ABORTED if fault.status == 2 else DecodeStatus.OK

    def _check(self, plan: BatchPlan) -> None:
        assert plan.rows, "an empty batch"
        assert len({id(rows.sequence) for rows in plan.rows}) == len(plan.rows)
        for rows in plan.rows:
            slot = rows.sequence.slot
            assert slot is not None
            assert slot.seq_id < self.memory.n_seq_max - 1, "not an id for batches"
            assert rows.count > 0
            if self.refuses(rows) or self.memory.seq_pos_max(slot.seq_id) + 1 != rows.start:
                raise DecodeError("invalid batch", -1)

    def _sample(self, rows: Rows, is_nan: bool) -> Sampled | None:
        sequence = rows.sequence
        if not rows.wants_token:
            return None
        if is_nan:
            return Sampled(-1, None)
        assert sequence.slot is not None
        cells = self.memory.owned(sequence.slot.seq_id)
        salt = self._salts[sequence.request.cache_salt]
        assert all(cell.salt == salt for cell in cells), "a cell of another tenant"
        tokens = self.memory.tokens(sequence.slot.seq_id)
        return Sampled(next_token(tokens, sequence.index, self.vocab.size), None)


def _name(rows: Rows) -> tuple[int, int]:
    return rows.sequence.request.request_id, rows.sequence.index


class FakeVocab:
    """Token ids 0 to size - 1; each stands for the bytes it is given, by default its number.

    Args:
        size: how many.
        eog_tokens: those that end a sequence.
        pieces: bytes of tokens that stand for something special.
        control: control tokens.
    """

    def __init__(
        self,
        size: int = 1000,
        eog_tokens: Iterable[int] = (),
        pieces: dict[int, bytes] | None = None,
        control: Iterable[int] = (),
    ) -> None:
        self.size = size
        self.eog_tokens = frozenset(eog_tokens)
        self._pieces = pieces or {}
        self._control = frozenset(control)

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of a token."""
        return self._pieces.get(token, b" %d" % token)

    def is_control(self, token: int) -> bool:
        """Return whether a token is left out of text."""
        return token in self._control
