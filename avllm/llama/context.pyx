"""Context: the KV cache of a model and the computation of steps. Owns the llama_context pointer."""

import enum
import time

from avllm.errors import DecodeError, ModelLoadError

cimport cython
from libc.stdint cimport int32_t, uint8_t

from avllm.llama cimport libllama as lib
from avllm.llama.batch cimport Batch
from avllm.llama.model cimport Model

from avllm.llama import backend

# Sequence ids that the memory calls accept with one unified cache (LLAMA_MAX_SEQ); only those
# below n_seq_max may stand in a batch or be saved.
MAX_SEQ_IDS = 256

_CELL_TYPES = {"f32": lib.GGML_TYPE_F32, "f16": lib.GGML_TYPE_F16, "q8_0": lib.GGML_TYPE_Q8_0}


class DecodeStatus(enum.IntEnum):
    """Outcomes of a step that are part of the algorithm (llama.h, ``llama_decode``)."""

    OK = 0
    NO_KV_SLOT = 1
    ABORTED = 2


cdef bint _on_abort(void * data) noexcept nogil:
    return (<bint *> data)[0]


@cython.final
cdef class Context:
    """One shared KV cache for all sequences of a model, and ``llama_decode`` over it.

    Owned by one thread at a time, save for ``request_abort``.

    Args:
        model: the model; kept alive.
        n_ctx: cells of the cache, shared by all sequences; rounded up by llama.cpp.
        n_batch: most rows of one step (also the micro-batch: one graph a step).
        n_seq_max: sequences that may stand in a batch.
        num_threads: threads of a step; a pool of its own, asleep between steps.
        cell_type: ``f16``, ``f32`` or ``q8_0``.

    Raises:
        ModelLoadError: ``reason`` is ``"memory"`` when the cache cannot be allocated.
    """

    def __cinit__(
        self, Model model not None, *, int n_ctx, int n_batch, int n_seq_max, int num_threads,
        str cell_type="f16"
    ):
        _check_range("n_ctx", n_ctx, 1, 1 << 30)
        _check_range("n_seq_max", n_seq_max, 1, MAX_SEQ_IDS)
        _check_range("n_batch", n_batch, n_seq_max, n_ctx)
        _check_range("num_threads", num_threads, 1, 512)
        if model.vocab_only:
            raise ValueError("the model was loaded with vocab_only=True: it has no weights")
        self.model = model
        self.num_threads = num_threads
        self.abort_requested = False
        cdef lib.llama_context_params params = lib.llama_context_default_params()
        params.n_ctx = n_ctx
        params.n_batch = n_batch
        params.n_ubatch = n_batch
        params.n_seq_max = n_seq_max
        # One row of logits per sequence; the default would reserve n_batch rows of the vocabulary.
        params.n_outputs_max = n_seq_max
        params.n_threads = num_threads
        params.n_threads_batch = num_threads
        params.type_k = <lib.ggml_type> <int> _CELL_TYPES[cell_type]
        params.type_v = params.type_k
        params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_AUTO
        params.kv_unified = True
        params.swa_full = True  # a small ring never recycles cells that sequences share
        params.no_perf = True
        params.abort_callback = <lib.ggml_abort_callback> _on_abort
        params.abort_callback_data = &self.abort_requested
        backend.drain_log()
        try:
            with nogil:
                self.ptr = lib.llama_init_from_model(model.ptr, params)
        except (MemoryError, RuntimeError) as error:
            raise _context_error(n_ctx, [*backend.drain_log(), str(error)]) from error
        errors = backend.drain_log()
        if self.ptr == NULL:
            raise _context_error(n_ctx, errors)
        self.memory = lib.llama_get_memory(self.ptr)
        self.n_ctx = lib.llama_n_ctx(self.ptr)
        self.n_batch = lib.llama_n_batch(self.ptr)
        self.n_seq_max = n_seq_max
        self.n_vocab = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model.ptr))

    def __dealloc__(self):
        if self.ptr != NULL:
            with nogil:
                lib.llama_detach_threadpool(self.ptr)
                lib.llama_free(self.ptr)
            self.ptr = NULL
        if self.threadpool != NULL:
            lib.ggml_threadpool_free(self.threadpool)
            self.threadpool = NULL

    def attach_threadpool(self, int poll=0):
        """Start the compute threads; call it on the thread that will decode.

        Without a pool llama.cpp creates and joins threads in every step.

        Args:
            poll: 0 to 100, how long idle threads spin before they sleep. They spin between steps
                too, on the cores that sampling and the server need.
        """
        if self.threadpool != NULL:
            return
        cdef lib.ggml_threadpool_params params = lib.ggml_threadpool_params_default(
            self.num_threads)
        params.poll = poll
        self.threadpool = lib.ggml_threadpool_new(&params)
        if self.threadpool == NULL:
            raise MemoryError("no thread pool")
        lib.llama_attach_threadpool(self.ptr, self.threadpool, self.threadpool)

    def decode(self, Batch batch not None):
        """Compute one step; releases the GIL. Its time is added to ``decode_seconds``.

        Returns:
            A DecodeStatus: OK; NO_KV_SLOT, nothing changed; or ABORTED, positions of the batch
            may stay in memory: read ``seq_pos_max`` again.

        Raises:
            DecodeError: the batch is invalid or could not be computed.
            ValueError: the batch is outside the limits of this context.
        """
        self._check_batch(batch)
        cdef int32_t status
        started = time.perf_counter()
        self.num_rows = 0
        try:
            with nogil:
                status = lib.llama_decode(self.ptr, batch.ptr)
                if status == 0:
                    lib.llama_synchronize(self.ptr)
        except (MemoryError, RuntimeError) as error:
            raise DecodeError(f"llama.cpp could not compute a step: {error}", -2) from error
        finally:
            self.decode_seconds += time.perf_counter() - started
        if status < 0 or status > 2:
            reason = "; ".join(backend.drain_log()) or "it gave no reason"
            raise DecodeError(f"llama.cpp could not compute a step ({status}): {reason}", status)
        if status == 0:
            self.num_rows = batch.ptr.n_tokens
        return DecodeStatus(status)

    cdef int _check_batch(self, Batch batch) except -1:
        # llama.cpp asserts on some of these, which would end the process.
        cdef int row, n = batch.ptr.n_tokens
        if not 0 < n <= self.n_batch:
            raise ValueError(f"a batch must have 1 to {self.n_batch} rows, got {n}")
        if batch.num_outputs > self.n_seq_max:
            raise ValueError(f"at most {self.n_seq_max} rows may have logits")
        for row in range(n):
            if not 0 <= batch.ptr.token[row] < self.n_vocab:
                raise ValueError(f"row {row}: token {batch.ptr.token[row]} is no token id")
            if not 0 <= batch.ptr.seq_id[row][0] < self.n_seq_max:
                raise ValueError(f"row {row}: seq_id {batch.ptr.seq_id[row][0]} is out of range")
            if batch.ptr.pos[row] < 0:
                raise ValueError(f"row {row}: position {batch.ptr.pos[row]} is negative")
        return 0

    cdef float * logits(self, int row) except NULL:
        # Pointer to n_vocab logits of a row of the last step; dies with the next decode.
        if not 0 <= row < self.num_rows:
            raise IndexError(f"row {row} is not in the last step ({self.num_rows} rows)")
        cdef float * values = lib.llama_get_logits_ith(self.ptr, row)
        if values == NULL:
            raise IndexError(f"row {row} of the last step has no logits")
        return values

    def logits_array(self, int row):
        """Return a copy of the logits of a row of the last step: float32, shape (n_vocab,)."""
        import numpy

        cdef float[::1] view = <float[:self.n_vocab]> self.logits(row)
        return numpy.array(view, dtype=numpy.float32)

    def request_abort(self):
        """Make a running ``decode`` end with ABORTED within about a millisecond. Any thread."""
        self.abort_requested = True

    def clear_abort(self):
        """Allow steps again after ``request_abort``."""
        self.abort_requested = False

    def clear(self):
        """Forget every sequence."""
        with nogil:
            lib.llama_memory_clear(self.memory, False)

    def seq_rm(self, int seq_id, int start=-1, int end=-1):
        """Remove positions [start, end) of a sequence; -1 means the beginning, the end.

        Cells that no other sequence owns become free.

        Returns:
            False when this kind of memory cannot remove a part (recurrent and hybrid models).
        """
        _check_range("seq_id", seq_id, 0, MAX_SEQ_IDS - 1)
        return lib.llama_memory_seq_rm(self.memory, seq_id, start, end)

    def seq_cp(self, int source, int target, int start=-1, int end=-1):
        """Let ``target`` own the cells of ``source`` in [start, end): shared, nothing is copied.

        ``target`` must hold nothing in that range: remove it first.
        """
        _check_range("source", source, 0, MAX_SEQ_IDS - 1)
        _check_range("target", target, 0, MAX_SEQ_IDS - 1)
        lib.llama_memory_seq_cp(self.memory, source, target, start, end)

    def seq_pos_max(self, int seq_id):
        """Return the largest position of a sequence, -1 when it is empty."""
        _check_range("seq_id", seq_id, 0, MAX_SEQ_IDS - 1)
        return lib.llama_memory_seq_pos_max(self.memory, seq_id)

    def seq_pos_min(self, int seq_id):
        """Return the smallest position of a sequence, -1 when it is empty."""
        _check_range("seq_id", seq_id, 0, MAX_SEQ_IDS - 1)
        return lib.llama_memory_seq_pos_min(self.memory, seq_id)

    def save_sequence(self, int seq_id):
        """Return the memory of a sequence as bytes, to be restored byte for byte."""
        _check_range("seq_id", seq_id, 0, self.n_seq_max - 1)
        cdef size_t size, written
        cdef bytearray state
        cdef uint8_t * data
        with nogil:
            size = lib.llama_state_seq_get_size_ext(self.ptr, seq_id, 0)
        state = bytearray(size)
        data = state
        with nogil:
            written = lib.llama_state_seq_get_data_ext(self.ptr, data, size, seq_id, 0)
        if written != size:
            raise DecodeError(f"sequence {seq_id} could not be saved ({written} of {size} bytes)")
        return state

    def restore_sequence(self, int seq_id, bytearray state not None):
        """Put saved memory into ``seq_id``, replacing what it held.

        Returns:
            False when there are not enough free cells; the sequence is then empty.
        """
        _check_range("seq_id", seq_id, 0, self.n_seq_max - 1)
        cdef const uint8_t * data = state
        cdef size_t size = len(state)
        cdef size_t taken
        with nogil:
            taken = lib.llama_state_seq_set_data_ext(self.ptr, data, size, seq_id, 0)
        return taken == size


cdef _check_range(str name, int value, int low, int high):
    if not low <= value <= high:
        raise ValueError(f"{name} must be between {low} and {high}, got {value}")


def _context_error(n_ctx, errors):
    text = "; ".join(error for error in errors if error) or "llama.cpp gave no reason"
    return ModelLoadError(
        f"a KV cache of {n_ctx} cells could not be made: {text}. "
        "Free some memory or choose a smaller context.",
        reason="memory",
    )
