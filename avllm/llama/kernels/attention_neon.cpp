#include "simd_neon.h"
// After the vectors that it is written in:
#include "attention_kernel.h"

namespace avllm {
const AttentionKernel attention_neon = kernel();
}
