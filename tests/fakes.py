"""A backend without a model: tokens from a hash, faults as scripted.

The next token is a pure function of the tokens that are in memory for a sequence, so a wrong,
missing or foreign cell shows in the output; ``expected_tokens`` computes the same from the prompt.
"""

from __future__ import annotations

import time
import zlib
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fake_memory import Cell, FakeMemory

from avllm.engine.batch_plan import BatchPlan, Rows, Sampled
from avllm.engine.model_runner import StepResult
from avllm.errors import DecodeError
from avllm.llama import DecodeStatus
from avllm.sampling_params import SamplingParams


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
            self._compute(rows, salt, rows.count if whole else rows.count // 2)
        if fault.status < 0:
            raise DecodeError("scripted", fault.status)
        return DecodeStatus.ABORTED if fault.status == 2 else DecodeStatus.OK

    def _compute(self, rows: Rows, salt: int, count: int) -> None:
        slot = rows.sequence.slot
        assert slot is not None
        for position in range(rows.start, rows.start + count):
            token = rows.sequence.tokens[position]
            self.memory.put(slot.seq_id, Cell(position, token, salt))

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
        assert {cell.salt for cell in cells} == {salt}, "a cell of another tenant"
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
