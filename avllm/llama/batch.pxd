from avllm.llama.libllama cimport llama_batch


cdef class Batch:
    cdef llama_batch ptr
    cdef readonly int capacity
    cdef readonly int num_outputs

    cpdef int add(self, int token, int position, int seq_id, bint output) except -1
