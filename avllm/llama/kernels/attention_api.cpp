#include "attention_api.h"

#include "attention_choice.h"
#include "ggml-impl.h"

#include <atomic>
#include <cstdlib>
#include <cstring>

namespace avllm {

namespace {

// What is selected: the position in runnable_kernels() of the best kernel allowed.
constexpr int kStock = -1;

int find(const char * name) {
    const AttentionKernel * const * list = runnable_kernels();
    if (std::strcmp(name, "stock") == 0) return kStock;
    if (std::strcmp(name, "avllm") == 0 && list[0]) return 0;
    for (int i = 0; list[i]; ++i)
        if (std::strcmp(name, list[i]->name) == 0) return i;
    return -2;
}

int initial() {
    const int best = runnable_kernels()[0] ? 0 : kStock;
    const char * wanted = std::getenv("AVLLM_ATTENTION");
    if (!wanted || !*wanted) return best;
    const int found = find(wanted);
    if (found >= kStock) return found;
    GGML_LOG_WARN("AVLLM_ATTENTION=%s: this build and processor have no such attention kernel, using %s\n", wanted,
                  best == kStock ? "stock" : runnable_kernels()[best]->name);
    return best;
}

std::atomic<int> & selected() {
    static std::atomic<int> value{initial()};
    return value;
}

}  // namespace

AttentionCounters attention_counters;

const AttentionKernel * choose_kernel(int k_head_size, int v_head_size) {
    const int first = selected().load(std::memory_order_relaxed);
    if (first == kStock) return nullptr;
    for (const AttentionKernel * const * k = runnable_kernels() + first; *k; ++k)
        if (k_head_size % (*k)->lanes == 0 && v_head_size % (*k)->lanes == 0) return *k;
    return nullptr;
}

}  // namespace avllm

avllm_attention_counts avllm_attention_get_counts() {
    const avllm::AttentionCounters & c = avllm::attention_counters;
    return {c.ours.load(), c.stock.load(), c.rows.load(), c.tiles.load()};
}

const char * avllm_attention_name() {
    const int position = avllm::selected().load();
    return position == avllm::kStock ? "stock" : avllm::runnable_kernels()[position]->name;
}

int avllm_attention_select(const char * name) {
    const int found = avllm::find(name);
    if (found < avllm::kStock) return -1;
    avllm::selected().store(found);
    return 0;
}
