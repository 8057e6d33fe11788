/* Forced into ggml-cpu.c by the build: its barriers spin on a pause instruction for ever, and on a
 * machine that others use too, two spinning threads take each other's core: a step of 50 ms then
 * takes seconds. Here a thread that has spun for about 40 us lets others run. */
#pragma once
#if defined(__linux__) && (defined(__x86_64__) || defined(__i386__))
#include <immintrin.h>
#include <sched.h>

static inline void avllm_pause(void) {
    static _Thread_local unsigned spins;
    if ((++spins & 1023u) == 0) {
        sched_yield();
    } else {
        __builtin_ia32_pause();
    }
}

#define _mm_pause() avllm_pause()
#endif
