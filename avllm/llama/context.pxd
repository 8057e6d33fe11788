from libc.stdint cimport int32_t

from avllm.llama.batch cimport Batch
from avllm.llama.libllama cimport ggml_threadpool, llama_context, llama_memory_t
from avllm.llama.model cimport Model


cdef class Context:
    cdef llama_context * ptr
    cdef llama_memory_t memory
    cdef ggml_threadpool * threadpool
    cdef readonly Model model
    cdef readonly int n_ctx
    cdef readonly int n_batch
    cdef readonly int n_seq_max
    cdef readonly int n_vocab
    cdef readonly int num_threads
    cdef readonly double decode_seconds
    cdef bint abort_requested
    cdef int32_t num_rows
    cdef int _check_batch(self, Batch batch) except -1
    cdef float * logits(self, int row) except NULL
