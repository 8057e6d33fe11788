"""Batch: the arrays of one llama_decode call, allocated once and refilled every step."""

cimport cython
from libc.stdint cimport int32_t

from avllm.llama cimport libllama as lib


@cython.final
cdef class Batch:
    """Rows of one step: each is a token at a position of a sequence, with or without logits.

    Owned by one thread. Positions and sequence ids are the scheduler's business; the context
    checks them against its limits before anything reaches llama.cpp.

    Args:
        capacity: most rows of a step.
    """

    def __cinit__(self, int capacity):
        if not 0 < capacity <= 1 << 20:
            raise ValueError(f"capacity must be between 1 and {1 << 20}, got {capacity}")
        self.capacity = capacity
        self.ptr = lib.llama_batch_init(capacity, 0, 1)
        if self.ptr.token == NULL or self.ptr.seq_id == NULL:
            raise MemoryError()

    def __dealloc__(self):
        if self.ptr.token != NULL:
            lib.llama_batch_free(self.ptr)
            self.ptr.token = NULL

    def __len__(self):
        return self.ptr.n_tokens

    def clear(self):
        """Forget all rows."""
        self.ptr.n_tokens = 0
        self.num_outputs = 0

    cpdef int add(self, int token, int position, int seq_id, bint output) except -1:
        """Append one row and return its index; ``output`` asks for its logits.

        Raises:
            IndexError: the batch is full.
        """
        cdef int row = self.ptr.n_tokens
        if row >= self.capacity:
            raise IndexError(f"the batch holds at most {self.capacity} rows")
        self.ptr.token[row] = token
        self.ptr.pos[row] = position
        self.ptr.n_seq_id[row] = 1
        self.ptr.seq_id[row][0] = seq_id
        self.ptr.logits[row] = output
        self.ptr.n_tokens = row + 1
        self.num_outputs += output
        return row

    def extend(
        self, const int32_t[::1] tokens, int start, int count, int seq_id, bint output_last
    ):
        """Append ``tokens[start:start + count]`` at positions ``start...`` of ``seq_id``.

        Returns:
            The index of the last row, whose logits ``output_last`` asks for.

        Raises:
            IndexError: the range is empty or outside ``tokens``, or the batch has no room.
        """
        if start < 0 or count < 1 or start + count > tokens.shape[0]:
            raise IndexError(f"tokens[{start}:{start + count}] of {tokens.shape[0]} tokens")
        if self.ptr.n_tokens + count > self.capacity:
            raise IndexError(f"the batch holds at most {self.capacity} rows")
        cdef int i
        for i in range(start, start + count):
            self.add(tokens[i], i, seq_id, output_last and i == start + count - 1)
        return self.ptr.n_tokens - 1
