from avllm.llama.libllama cimport llama_vocab
from avllm.llama.model cimport Model


cdef class Vocab:
    cdef const llama_vocab * ptr
    cdef readonly Model model
    cdef readonly int size
    cdef list _pieces
    cdef frozenset _eog

    cdef bytes _read_piece(self, int token)
    cdef int _check(self, int token) except -1
