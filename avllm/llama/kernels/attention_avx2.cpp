#include "simd_avx2.h"
// After the vectors that it is written in:
#include "attention_kernel.h"

namespace avllm {
const AttentionKernel attention_avx2 = kernel();
}
