from avllm.llama.libllama cimport llama_model


cdef class Model:
    cdef llama_model * ptr
    cdef readonly str path
    cdef readonly bint vocab_only
