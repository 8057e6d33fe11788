// The kernel in the place of ggml's: the linker sends calls of ggml_compute_forward_flash_attn_ext and
// ggml_graph_compute here (--wrap) and keeps ggml's own as __real_...
//
// All threads of a graph enter the operation together. Thread 0 reads the mask and plans; it hands the
// plan to the others through the graph's work buffer. The mask is the same for all layers of a graph,
// so that a graph's plans are kept until it ends.
#include "attention_choice.h"
#include "attention_plan.h"

#include "ggml-cpu.h"
#include "ggml.h"
#include "ggml-cpu-impl.h"

#include <cmath>
#include <cstring>
#include <memory>
#include <new>
#include <optional>

extern "C" {
void __real_ggml_compute_forward_flash_attn_ext(const ggml_compute_params * params, ggml_tensor * dst);
void __wrap_ggml_compute_forward_flash_attn_ext(const ggml_compute_params * params, ggml_tensor * dst);
ggml_status __real_ggml_graph_compute(ggml_cgraph * graph, ggml_cplan * plan);
ggml_status __wrap_ggml_graph_compute(ggml_cgraph * graph, ggml_cplan * plan);
}

namespace avllm {
namespace {

std::optional<KvType> kv_type(ggml_type type) {
    switch (type) {
    case GGML_TYPE_F32: return KvType::F32;
    case GGML_TYPE_F16: return KvType::F16;
    case GGML_TYPE_Q8_0: return KvType::Q8_0;
    default: return std::nullopt;
    }
}

bool pool_of(const ggml_tensor * t, KvPool & pool) {
    const std::optional<KvType> type = kv_type(t->type);
    if (!type || t->nb[0] != ggml_type_size(t->type)) return false;
    pool = {static_cast<const char *>(t->data), *type, int(t->ne[0]), t->nb[1], t->nb[2], t->nb[3]};
    return true;
}

// The operation in our terms, without the slopes; false if its shape is not covered.
bool describe(const ggml_tensor * dst, Attention & a, float & max_bias) {
    const ggml_tensor *q = dst->src[0], *k = dst->src[1], *v = dst->src[2], *mask = dst->src[3], *sinks = dst->src[4];
    float options[3];  // scale, ALiBi's max_bias, soft-cap
    std::memcpy(options, dst->op_params, sizeof options);
    const bool covered = q->type == GGML_TYPE_F32 && q->nb[0] == sizeof(float) && q->ne[2] % k->ne[2] == 0 &&
                         k->ne[2] == v->ne[2] && k->ne[1] == v->ne[1] && k->ne[3] == q->ne[3] && v->ne[3] == q->ne[3] &&
                         ggml_is_contiguous(dst) &&
                         (!mask || (mask->type == GGML_TYPE_F16 && mask->nb[0] == 2 && mask->ne[2] == 1)) &&
                         (!sinks || sinks->type == GGML_TYPE_F32);
    if (!covered || !pool_of(k, a.k) || !pool_of(v, a.v)) return false;
    a.rows = int(q->ne[1]);
    a.heads = int(q->ne[2]);
    a.kv_heads = int(k->ne[2]);
    a.cells = int(k->ne[1]);
    a.streams = int(q->ne[3]);
    a.scale = options[0];
    max_bias = options[1];
    a.softcap = options[2];
    a.slopes = nullptr;
    a.q = static_cast<const char *>(q->data);
    a.q_row_stride = q->nb[1];
    a.q_head_stride = q->nb[2];
    a.q_stream_stride = q->nb[3];
    a.mask = mask ? static_cast<const char *>(mask->data) : nullptr;
    a.mask_row_stride = mask ? mask->nb[1] : 0;
    a.mask_stream_stride = mask ? mask->nb[3] : 0;
    a.mask_streams = mask ? int(mask->ne[3]) : 1;
    a.sinks = sinks ? static_cast<const float *>(sinks->data) : nullptr;
    a.out = static_cast<float *>(dst->data);
    return true;
}

// (Press et al. 2022, with the rule for head counts that are no power of two.)
std::vector<float> alibi_slopes(int heads, float max_bias) {
    const int power = 1 << int(std::floor(std::log2(heads)));
    std::vector<float> slopes(heads);
    for (int h = 0; h < heads; ++h)
        slopes[h] = h < power ? std::exp2(-max_bias / power * (h + 1))
                              : std::exp2(-max_bias / 2 / power * (2 * (h - power) + 1));
    return slopes;
}

// What a plan depends on.
struct PlanKey {
    const ggml_tensor * mask;
    const void * mask_data;
    const AttentionKernel * kernel;
    int rows, heads, kv_heads, cells, streams, threads;

    bool operator==(const PlanKey & o) const {
        return mask == o.mask && mask_data == o.mask_data && kernel == o.kernel && rows == o.rows && heads == o.heads &&
               kv_heads == o.kv_heads && cells == o.cells && streams == o.streams && threads == o.threads;
    }
};

// Plans and buffers of the thread that computes graphs (thread 0 of its pool).
class Leader {
  public:
    void begin_graph() {
        plans.clear();
        in_graph = true;
    }
    void end_graph() {
        plans.clear();
        in_graph = false;
    }

    const AttentionPlan & plan(const PlanKey & key, const Attention & a) {
        if (!in_graph) plans.clear();
        for (const auto & known : plans)
            if (known.first == key) return *known.second;
        plans.emplace_back(key, std::make_unique<AttentionPlan>(a, *key.kernel, key.threads));
        return *plans.back().second;
    }

    // Room for `floats`, aligned to a cache line; what it held is lost.
    float * buffer(size_t floats) {
        if (floats > capacity) {
            memory.reset();
            memory.reset(static_cast<float *>(::operator new(floats * sizeof(float), kAlignment)));
            capacity = floats;
        }
        return memory.get();
    }

    std::vector<float> slopes;

  private:
    static constexpr std::align_val_t kAlignment{64};
    struct Free {
        void operator()(float * p) const { ::operator delete(p, kAlignment); }
    };
    std::vector<std::pair<PlanKey, std::unique_ptr<AttentionPlan>>> plans;
    bool in_graph = false;
    std::unique_ptr<float, Free> memory;
    size_t capacity = 0;
};

Leader & leader() {
    thread_local Leader self;
    return self;
}

// What thread 0 hands to the others. It lives in the work buffer.
struct Job {
    const AttentionKernel * kernel;  // null: leave it to stock
    const AttentionPlan * plan;
    const float * slopes;
    float *scratch, *partials;
    size_t scratch_floats;  // of one thread
};

// Thread 0 chooses, so that all threads agree whatever is selected meanwhile.
Job prepare(const Attention & a, const ggml_tensor * mask, float max_bias, int threads) {
    const AttentionKernel * kernel = choose_kernel(a.k.head_size, a.v.head_size);
    if (!kernel) return {};
    try {
        Leader & self = leader();
        const AttentionPlan & plan = self.plan(
            {mask, a.mask, kernel, a.rows, a.heads, a.kv_heads, a.cells, a.streams, threads}, a);
        if (max_bias > 0) self.slopes = alibi_slopes(a.heads, max_bias);
        const size_t scratch = (kernel->scratch_size(a) + 31) / 16 * 16;
        float * buffer = self.buffer(scratch * threads + plan.n_partials * (2 + a.v.head_size));
        const float * slopes = max_bias > 0 ? self.slopes.data() : nullptr;
        return {kernel, &plan, slopes, buffer, buffer + scratch * threads, scratch};
    } catch (const std::bad_alloc &) {
        return {};  // stock needs no memory
    }
}

void count(const AttentionPlan & plan) {
    uint64_t tiles = 0;
    for (const Unit & u : plan.units) tiles += plan.tiles[u.tile].n_rows > 1;
    attention_counters.ours.fetch_add(1, std::memory_order_relaxed);
    attention_counters.tiles.fetch_add(tiles, std::memory_order_relaxed);
    attention_counters.rows.fetch_add(plan.units.size() - tiles, std::memory_order_relaxed);
}

void merge_partials(const Attention & a, const Job & job, int thread, int threads) {
    const size_t size = 2 + a.v.head_size;
    float * scratch = job.scratch + thread * job.scratch_floats;
    const auto merge = [&](const RowTile & tile, int kv_head, int query, size_t first, size_t stride, int n) {
        job.kernel->merge(a, tile, kv_head, query, job.partials + first * size, stride * size, n, scratch);
    };
    job.plan->for_each_merge(a, merge, thread, threads);
}

void work(const Attention & a, const Job & job, const ggml_compute_params * params) {
    const AttentionPlan & plan = *job.plan;
    float * scratch = job.scratch + params->ith * job.scratch_floats;
    for (int i = params->ith; i < int(plan.units.size()); i = ggml_threadpool_chunk_add(params->threadpool, 1)) {
        const Unit & unit = plan.units[i];
        job.kernel->run(a, plan.tiles[unit.tile], unit, scratch, job.partials);
    }
    if (plan.n_partials == 0) return;
    ggml_barrier(params->threadpool);
    merge_partials(a, job, params->ith, params->nth);
}

// False: not ours, in every thread alike.
bool compute(const ggml_compute_params * params, ggml_tensor * dst) {
    Attention a;
    float max_bias;
    if (params->use_ref || params->wsize < sizeof(Job) || !describe(dst, a, max_bias)) return false;
    Job * shared = static_cast<Job *>(params->wdata);
    if (params->ith == 0) {
        *shared = prepare(a, dst->src[3], max_bias, params->nth);
        if (shared->kernel) count(*shared->plan);
        ggml_threadpool_chunk_set(params->threadpool, params->nth);
    }
    ggml_barrier(params->threadpool);
    const Job job = *shared;
    if (!job.kernel) {
        ggml_barrier(params->threadpool);  // stock writes the work buffer
        return false;
    }
    a.slopes = job.slopes;
    work(a, job, params);
    return true;
}

}  // namespace
}  // namespace avllm

void __wrap_ggml_compute_forward_flash_attn_ext(const ggml_compute_params * params, ggml_tensor * dst) {
    if (avllm::compute(params, dst)) return;
    if (params->ith == 0) avllm::attention_counters.stock.fetch_add(1, std::memory_order_relaxed);
    __real_ggml_compute_forward_flash_attn_ext(params, dst);
}

ggml_status __wrap_ggml_graph_compute(ggml_cgraph * graph, ggml_cplan * plan) {
    avllm::leader().begin_graph();
    const ggml_status status = __real_ggml_graph_compute(graph, plan);
    avllm::leader().end_graph();
    return status;
}
