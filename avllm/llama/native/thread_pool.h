// A small pool for short parallel loops between two decode steps; idle threads sleep.
#pragma once

#include <cstdint>
#include <functional>

namespace avllm {

// Run body(0) ... body(n - 1) on up to n_threads threads, the caller's included; returns when all
// are done. body must not throw. Any thread may call; a second caller works alone. Threads start on first use and live until
// the process ends; after a fork the child starts its own.
void parallel_for(int32_t n, int32_t n_threads, const std::function<void(int32_t)> & body);

}  // namespace avllm
