"""Sampler: chooses the next token of one sequence; sample_rows does it for a whole step."""

import secrets

cimport cython
from libc.stdint cimport int32_t
from libc.stdlib cimport free, malloc
from libcpp.vector cimport vector

from avllm.llama.context cimport Context
from avllm.llama.libnative cimport (
    avllm_sample_job,
    avllm_sample_rows,
    avllm_sampler_accept_prompt,
    avllm_sampler_free,
    avllm_sampler_new,
    avllm_sampling_params,
)


@cython.final
cdef class Sampler:
    """Sampling state of one sequence: parameters, random state, tokens seen so far.

    Owned by one thread at a time.

    Args:
        params: a SamplingParams (already checked).
        n_vocab: size of a logit row.
        index: number of the sequence within its request; shifts the seed.
    """

    def __cinit__(self, params, int n_vocab, int index=0):
        cdef avllm_sampling_params c
        cdef vector[int32_t] ids
        cdef vector[float] values
        c.temperature = params.temperature
        c.top_k = min(params.top_k, n_vocab)
        c.top_p = params.top_p
        c.min_p = params.min_p
        c.presence_penalty = params.presence_penalty
        c.frequency_penalty = params.frequency_penalty
        c.repeat_penalty = params.repeat_penalty
        c.repeat_last_n = 2**20 if params.repeat_last_n < 0 else params.repeat_last_n
        seed = secrets.randbits(64) if params.seed is None else params.seed
        c.seed = (seed + index) & 0xFFFFFFFFFFFFFFFF
        for token, bias in params.logit_bias.items():
            if not 0 <= token < n_vocab:
                raise ValueError(f"logit_bias: {token} is no token id")
            ids.push_back(token)
            values.push_back(bias)
        self.n_vocab = n_vocab
        self.num_logprobs = -1 if params.logprobs is None else params.logprobs
        self.ptr = avllm_sampler_new(&c, n_vocab, ids.data(), values.data(), <int32_t> ids.size())

    def __dealloc__(self):
        if self.ptr != NULL:
            avllm_sampler_free(self.ptr)
            self.ptr = NULL

    def accept_prompt(self, const int32_t[::1] tokens):
        """Count prompt tokens towards the repeat penalty."""
        if tokens.shape[0]:
            avllm_sampler_accept_prompt(self.ptr, &tokens[0], <int32_t> tokens.shape[0])

    def sample(self, float[::1] logits):
        """Sample one row of logits that is not in a context; -1 when no candidate is finite.

        Args:
            logits: float32, shape (n_vocab,); unchanged afterwards.
        """
        if logits.shape[0] != self.n_vocab:
            raise ValueError(f"expected {self.n_vocab} logits, got {logits.shape[0]}")
        cdef avllm_sample_job job
        job.sampler = self.ptr
        job.logits = &logits[0]
        job.n_logprobs = self.num_logprobs
        with nogil:
            avllm_sample_rows(&job, 1, 1)
        return _answer(&job)


def sample_rows(Context context not None, list samplers, list rows, int num_threads):
    """Sample one token for each row of the last step; releases the GIL.

    Args:
        samplers: one Sampler per row, each at most once.
        rows: indices of batch rows that asked for logits.
        num_threads: threads to share the rows out to, at most.

    Returns:
        A list with, per row: the token id (-1 when no finite candidate was left), or, when its
        sampler reports log-probabilities, (token id, logprob, [(id, logprob), ...]).
    """
    cdef int n = len(rows)
    if len(samplers) != n:
        raise ValueError(f"{len(samplers)} samplers for {n} rows")
    if n == 0:
        return []
    cdef avllm_sample_job * jobs = <avllm_sample_job *> malloc(n * sizeof(avllm_sample_job))
    if jobs == NULL:
        raise MemoryError()
    cdef int i
    cdef Sampler sampler
    try:
        for i in range(n):
            sampler = samplers[i]
            if sampler.n_vocab != context.n_vocab:
                raise ValueError("the sampler belongs to another vocabulary")
            jobs[i].sampler = sampler.ptr
            jobs[i].logits = context.logits(rows[i])
            jobs[i].n_logprobs = sampler.num_logprobs
        with nogil:
            avllm_sample_rows(jobs, n, num_threads)
        return [_answer(&jobs[i]) for i in range(n)]
    finally:
        free(jobs)


cdef object _answer(avllm_sample_job * job):
    if job.n_logprobs < 0 or job.token < 0:
        return job.token
    top = [(job.top_tokens[j], job.top_logprobs[j]) for j in range(job.n_top)]
    return job.token, job.logprob, top
