// Which kernel computes an operation, and the counters of what was computed.
#pragma once

#include "attention.h"

#include <atomic>

namespace avllm {

struct AttentionCounters {
    std::atomic<uint64_t> ours{0}, stock{0}, rows{0}, tiles{0};
};
extern AttentionCounters attention_counters;

// The kernels that this build has and this processor can run, the best first; ends with null.
const AttentionKernel * const * runnable_kernels();

// The selected kernel, or a plainer one if the head sizes are no multiple of its vectors; null: stock.
const AttentionKernel * choose_kernel(int k_head_size, int v_head_size);

}  // namespace avllm
