#include "attention_run.h"

#include "ggml-cpu.h"
#include "ggml.h"

#include <cstring>
#include <memory>
#include <new>
#include <vector>

namespace {

using Context = std::unique_ptr<ggml_context, void (*)(ggml_context *)>;

ggml_tensor * filled(ggml_context * context, int type, int64_t n0, int64_t n1, int64_t n2, int64_t n3,
                     const void * data) {
    ggml_tensor * t = ggml_new_tensor_4d(context, ggml_type(type), n0, n1, n2, n3);
    std::memcpy(t->data, data, ggml_nbytes(t));
    return t;
}

// Heads before rows, as the model graphs of llama.cpp hand them over: a strided view.
ggml_tensor * by_head(ggml_context * context, ggml_tensor * t) { return ggml_permute(context, t, 0, 2, 1, 3); }

ggml_tensor * build(ggml_context * c, const avllm_attention_problem & p) {
    ggml_tensor * q = filled(c, GGML_TYPE_F32, p.k_size, p.heads, p.rows, p.streams, p.q);
    ggml_tensor * k = filled(c, p.k_type, p.k_size, p.kv_heads, p.cells, p.streams, p.k);
    ggml_tensor * v = filled(c, p.v_type, p.v_size, p.kv_heads, p.cells, p.streams, p.v);
    ggml_tensor * mask = p.mask ? filled(c, GGML_TYPE_F16, p.cells, p.rows, 1, p.mask_streams, p.mask) : nullptr;
    ggml_tensor * out = ggml_flash_attn_ext(c, by_head(c, q), by_head(c, k), by_head(c, v), mask, p.scale, p.max_bias,
                                            p.softcap);
    if (p.sinks) ggml_flash_attn_ext_add_sinks(out, filled(c, GGML_TYPE_F32, p.heads, 1, 1, 1, p.sinks));
    return out;
}

size_t bytes_needed(const avllm_attention_problem & p) {
    const size_t q = size_t(p.rows) * p.heads * (p.k_size + p.v_size) * sizeof(float);
    const size_t kv = size_t(p.cells) * p.kv_heads * (p.k_size + p.v_size) * sizeof(float);
    const size_t mask = size_t(p.rows) * p.cells * sizeof(uint16_t);
    return size_t(p.streams) * (q + kv + mask) + (size_t(1) << 20);
}

}  // namespace

int avllm_attention_run(const avllm_attention_problem * problem) try {
    const Context context(ggml_init({bytes_needed(*problem), nullptr, false}), ggml_free);
    if (!context) return -1;
    ggml_tensor * out = build(context.get(), *problem);
    ggml_cgraph * graph = ggml_new_graph(context.get());
    ggml_build_forward_expand(graph, out);
    ggml_cplan plan = ggml_graph_plan(graph, problem->threads, nullptr);
    std::vector<uint8_t> work(plan.work_size);
    plan.work_data = work.data();
    if (ggml_graph_compute(graph, &plan) != GGML_STATUS_SUCCESS) return -1;
    std::memcpy(problem->out, out->data, ggml_nbytes(out));
    return 0;
} catch (const std::bad_alloc &) {
    return -1;
}
