// Sampling on raw logit rows, without a candidate per vocabulary entry and without the GIL.
//
// Stages in llama.cpp's order: logit bias and penalties, top-k, top-p, min-p, temperature, draw.
// Every truncation keeps a prefix of the candidates sorted by logit, so the stages are cut-offs in
// one short sorted list; only a full-vocabulary draw (no truncation) walks the row, by block sums.
#pragma once

#include <cstdint>

struct avllm_sampler;

struct avllm_sampling_params {
    float    temperature;
    int32_t  top_k;              // <= 0: all
    float    top_p;              // 1: all
    float    min_p;              // 0: all
    float    presence_penalty;   // generated tokens only
    float    frequency_penalty;  // generated tokens only
    float    repeat_penalty;     // the last repeat_last_n tokens, prompt included
    int32_t  repeat_last_n;
    uint64_t seed;
};

constexpr int32_t AVLLM_MAX_LOGPROBS = 20;

// One row to sample; the lower half is the answer.
struct avllm_sample_job {
    avllm_sampler * sampler;
    float *         logits;       // n_vocab values; changed and put back while sampling
    int32_t         n_logprobs;   // -1: no log-probabilities; 0 to AVLLM_MAX_LOGPROBS alternatives
    int32_t         token;        // sampled id, or -1 when no finite candidate was left
    float           logprob;      // natural log, before bias, penalties and truncation
    int32_t         n_top;
    int32_t         top_tokens[AVLLM_MAX_LOGPROBS];
    float           top_logprobs[AVLLM_MAX_LOGPROBS];
};

extern "C" {

// `bias` pairs ids with values added to their logits; -100 or less bans the id. Throws bad_alloc.
avllm_sampler * avllm_sampler_new(const avllm_sampling_params * params, int32_t n_vocab, const int32_t * bias_ids, const float * bias_values, int32_t n_bias);
void            avllm_sampler_free(avllm_sampler * sampler);

// Tell the sampler of a token of the sequence; sampled tokens are told by sampling itself.
void avllm_sampler_accept_prompt(avllm_sampler * sampler, const int32_t * tokens, int32_t n_tokens);

// Sample every job and accept its token; rows are shared out over up to n_threads threads.
// A sampler may stand in one job only and belongs to one thread at a time.
void avllm_sample_rows(avllm_sample_job * jobs, int32_t n_jobs, int32_t n_threads);
}
