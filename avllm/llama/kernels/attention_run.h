// One attention operation on arrays, through ggml's graph and the selected kernel: what the tests
// compare with a reference, in the very library that is shipped.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// All arrays are contiguous. Types are ggml's numbers (0: F32, 1: F16, 8: Q8_0, ...).
struct avllm_attention_problem {
    int32_t rows, heads, kv_heads, cells, streams;
    int32_t k_size, v_size, k_type, v_type;
    int32_t mask_streams, threads;
    float scale, max_bias, softcap;
    const float * q;        // [streams][rows][heads][k_size]
    const void * k;         // [streams][cells][kv_heads][k_size] of k_type
    const void * v;         // [streams][cells][kv_heads][v_size] of v_type
    const uint16_t * mask;  // [mask_streams][rows][cells] F16, or null
    const float * sinks;    // [heads], or null
    float * out;            // [streams][rows][heads][v_size]
};

// Returns 0, or -1 if memory or the computation failed. The shapes must be consistent.
int avllm_attention_run(const struct avllm_attention_problem * problem);

#ifdef __cplusplus
}
#endif
