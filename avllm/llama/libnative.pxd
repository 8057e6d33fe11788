# Declarations of avllm's own C++ in avllm/llama/native; no code.
from libc.stdint cimport int32_t, uint64_t
from libcpp cimport bool
from libcpp.string cimport string
from libcpp.vector cimport vector

from avllm.llama.libllama cimport llama_model


cdef extern from "native/log.h" nogil:
    cdef struct avllm_log_line:
        int level
        uint64_t thread
        string text

    void avllm_log_install() except +
    bool avllm_log_pending()
    uint64_t avllm_log_drain(vector[avllm_log_line] & lines) except +
    uint64_t avllm_log_thread()


cdef extern from "native/chat.h" nogil:
    cdef struct avllm_chat_templates:
        pass

    avllm_chat_templates * avllm_chat_templates_new(
        const llama_model * model, const string & source) except +
    void avllm_chat_templates_free(avllm_chat_templates * templates)
    bool avllm_chat_templates_explicit(const avllm_chat_templates * templates) except +
    void avllm_chat_templates_source(
        const avllm_chat_templates * templates, string & source) except +
    void avllm_chat_render(
        const avllm_chat_templates * templates, const string & request, string & result) except +


cdef extern from "native/sampling.h" nogil:
    int32_t AVLLM_MAX_LOGPROBS

    cdef struct avllm_sampler:
        pass

    cdef struct avllm_sampling_params:
        float temperature
        int32_t top_k
        float top_p
        float min_p
        float presence_penalty
        float frequency_penalty
        float repeat_penalty
        int32_t repeat_last_n
        uint64_t seed

    cdef struct avllm_sample_job:
        avllm_sampler * sampler
        float * logits
        int32_t n_logprobs
        int32_t token
        float logprob
        int32_t n_top
        int32_t * top_tokens
        float * top_logprobs

    avllm_sampler * avllm_sampler_new(
        const avllm_sampling_params * params, int32_t n_vocab, const int32_t * bias_ids,
        const float * bias_values, int32_t n_bias) except +
    void avllm_sampler_free(avllm_sampler * sampler)
    void avllm_sampler_accept_prompt(
        avllm_sampler * sampler, const int32_t * tokens, int32_t n_tokens) except +
    void avllm_sample_rows(avllm_sample_job * jobs, int32_t n_jobs, int32_t n_threads) except +
