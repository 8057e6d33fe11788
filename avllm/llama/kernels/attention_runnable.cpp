#include "attention_choice.h"

namespace avllm {

namespace {

#if defined(AVLLM_ATTENTION_KERNEL) && defined(__x86_64__)
bool has_avx2() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
bool has_avx512() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

}  // namespace

const AttentionKernel * const * runnable_kernels() {
    static const AttentionKernel * list[4] = {};
    static const bool filled = [] {
        [[maybe_unused]] int n = 0;
#if defined(AVLLM_ATTENTION_KERNEL)
#if defined(__x86_64__)
        if (has_avx512()) list[n++] = &attention_avx512;
        if (has_avx2()) list[n++] = &attention_avx2;
#elif defined(__aarch64__)
        list[n++] = &attention_neon;
#endif
        list[n++] = &attention_portable;
#endif
        return true;
    }();
    (void) filled;
    return list;
}

}  // namespace avllm
