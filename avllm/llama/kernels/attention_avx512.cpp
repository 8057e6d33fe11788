#include "simd_avx512.h"
// After the vectors that it is written in:
#include "attention_kernel.h"

namespace avllm {
const AttentionKernel attention_avx512 = kernel();
}
