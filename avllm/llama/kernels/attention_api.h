// What the rest of avllm may ask of the attention kernel. Everything may be called from any thread.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// How often attention was computed by which path, since the library was loaded. One operation is one
// layer of one micro-batch.
struct avllm_attention_counts {
    uint64_t ours;   // operations of the avllm kernel
    uint64_t stock;  // operations left to llama.cpp's: not covered, or switched off
    uint64_t rows;   // units of one row (decode) in the operations of ours
    uint64_t tiles;  // units of several rows (prefill)
};
struct avllm_attention_counts avllm_attention_get_counts(void);

// The kernel in use: "avx512", "avx2", "neon", "portable" or "stock".
const char * avllm_attention_name(void);

// Chooses a kernel by that name, or the best one by "avllm". Before the first call the environment
// variable AVLLM_ATTENTION decides, else "avllm". Returns 0, or -1 if this build or processor does
// not have it (then nothing changes). Operations under way finish with the old one.
int avllm_attention_select(const char * name);

#ifdef __cplusplus
}
#endif
