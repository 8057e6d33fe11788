import enum

import numpy as np
import numpy.typing as npt

from avllm.llama.batch import Batch
from avllm.llama.model import Model

MAX_SEQ_IDS: int

class DecodeStatus(enum.IntEnum):
    OK = 0
    NO_KV_SLOT = 1
    ABORTED = 2

class Context:
    model: Model
    n_ctx: int
    n_batch: int
    n_seq_max: int
    n_vocab: int
    num_threads: int
    decode_seconds: float
    def __init__(
        self,
        model: Model,
        *,
        n_ctx: int,
        n_batch: int,
        n_seq_max: int,
        num_threads: int,
        cell_type: str = "f16",
    ) -> None: ...
    def attach_threadpool(self, poll: int = 0) -> None: ...
    def decode(self, batch: Batch) -> DecodeStatus: ...
    def logits_array(self, row: int) -> npt.NDArray[np.float32]: ...
    def request_abort(self) -> None: ...
    def clear_abort(self) -> None: ...
    def clear(self) -> None: ...
    def seq_rm(self, seq_id: int, start: int = -1, end: int = -1) -> bool: ...
    def seq_cp(self, source: int, target: int, start: int = -1, end: int = -1) -> None: ...
    def seq_pos_max(self, seq_id: int) -> int: ...
    def seq_pos_min(self, seq_id: int) -> int: ...
    def save_sequence(self, seq_id: int) -> bytearray: ...
    def restore_sequence(self, seq_id: int, state: bytearray) -> bool: ...
