from avllm.llama.libnative cimport avllm_sampler


cdef class Sampler:
    cdef avllm_sampler * ptr
    cdef readonly int n_vocab
    cdef readonly int num_logprobs
