// Time of the attention kernels alone, one thread, best of several: what the arithmetic and the memory
// of one core allow, apart from everything else of a step. As in a model, 30 layers with K and V of
// their own follow each other on one plan, so that K and V come from memory unless all of them fit
// into the caches.
//
// Usage: bench_attention [kernel name ...]
#include "attention_choice.h"
#include "attention_plan.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <random>

#include <sys/mman.h>

using namespace avllm;

namespace {

// Time that this thread had a processor, so that others on the machine count for less.
double cpu_seconds() {
    timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return double(t.tv_sec) + t.tv_nsec * 1e-9;
}

// Aligned and on huge pages, as the KV cache is.
struct Pool {
    static constexpr size_t kHugePage = size_t(2) << 20;
    size_t size;
    std::unique_ptr<uint16_t, void (*)(void *)> data;

    explicit Pool(size_t n)
        : size(n), data(static_cast<uint16_t *>(std::aligned_alloc(kHugePage, round_up(n))), std::free) {
        madvise(data.get(), round_up(n), MADV_HUGEPAGE);
        std::mt19937 random(2);
        for (size_t i = 0; i < n; ++i) data.get()[i] = uint16_t(0x3000 + random() % 0x0C00);  // 0.125 to 1
    }
    static size_t round_up(size_t n) { return (n * sizeof(uint16_t) + kHugePage - 1) / kHugePage * kHugePage; }
};

struct Shape {
    const char * what;
    int sequences, length, rows;  // rows: the last ones of each sequence
};

struct Bench {
    static constexpr int kHeads = 9, kKvHeads = 3, kSize = 64, kLayers = 30;  // SmolLM2-135M
    std::vector<float> q, out, scratch;
    std::vector<uint16_t> mask;
    Pool k, v;
    Attention a{};

    explicit Bench(const Shape & s) : k(pool_size(s)), v(pool_size(s)) {
        const int cells = s.sequences * s.length, rows = s.sequences * s.rows;
        std::mt19937 random(1);
        std::normal_distribution<float> normal;
        q.resize(size_t(rows) * kHeads * kSize);
        for (float & x : q) x = normal(random);
        out.resize(q.size());
        mask.assign(size_t(rows) * cells, 0xFC00);
        for (int r = 0; r < rows; ++r) {
            const int sequence = r / s.rows, last = s.length - s.rows + r % s.rows;
            std::fill_n(mask.begin() + size_t(r) * cells + sequence * s.length, last + 1, 0);
        }
        const size_t head = kSize * sizeof(uint16_t), cell = kKvHeads * head;
        a.rows = rows, a.heads = kHeads, a.kv_heads = kKvHeads, a.cells = cells, a.streams = 1;
        a.scale = 0.125f;
        a.q = reinterpret_cast<const char *>(q.data());
        a.q_row_stride = kHeads * kSize * sizeof(float), a.q_head_stride = kSize * sizeof(float);
        a.k = {nullptr, KvType::F16, kSize, cell, head, 0};
        a.v = a.k;
        a.mask = reinterpret_cast<const char *>(mask.data());
        a.mask_row_stride = cells * sizeof(uint16_t), a.mask_streams = 1;
        a.out = out.data();
    }

    static size_t pool_size(const Shape & s) {
        return size_t(s.sequences) * s.length * kKvHeads * kSize * kLayers;
    }

    void set_layer(int layer) {
        const size_t at = size_t(layer) * a.cells * kKvHeads * kSize;
        a.k.data = reinterpret_cast<const char *>(k.data.get() + at);
        a.v.data = reinterpret_cast<const char *>(v.data.get() + at);
    }

    // Seconds of the plan and of the units of one layer, the best of `times`.
    std::pair<double, double> best(const AttentionKernel & kernel, int times) {
        std::pair<double, double> least{1e9, 1e9};
        scratch.resize(kernel.scratch_size(a));
        for (int i = 0; i < times; ++i) {
            const double start = cpu_seconds();
            const AttentionPlan plan(a, kernel, 1);
            const double planned = cpu_seconds();
            std::vector<float> partials(plan.n_partials * (2 + kSize));
            for (int layer = 0; layer < kLayers; ++layer) {
                set_layer(layer);
                for (const Unit & unit : plan.units)
                    kernel.run(a, plan.tiles[unit.tile], unit, scratch.data(), partials.data());
            }
            least = {std::min(least.first, planned - start),
                     std::min(least.second, (cpu_seconds() - planned) / kLayers)};
        }
        return least;
    }
};

void report(const Shape & s, const AttentionKernel & kernel) {
    Bench bench(s);
    const auto [plan, work] = bench.best(kernel, s.rows > 1 ? 5 : 20);
    const double seen = double(s.sequences) * s.rows * (s.length - (s.rows - 1) / 2.0);
    const double flops = seen * Bench::kHeads * Bench::kSize * 4;
    const double bytes = double(s.sequences) * s.length * Bench::kKvHeads * Bench::kSize * 4;
    std::printf("%-22s %-9s plan %8.1f us  units %9.1f us  %6.1f GFLOP/s  K and V once %6.1f GB/s\n", s.what,
                kernel.name, plan * 1e6, work * 1e6, flops / work / 1e9, bytes / work / 1e9);
}

}  // namespace

int main(int argc, char ** argv) {
    const Shape shapes[] = {{"decode 1 x 770", 1, 770, 1},     {"decode 1 x 2000", 1, 2000, 1},
                            {"decode 32 x 140", 32, 140, 1},   {"decode 16 x 780", 16, 780, 1},
                            {"decode 16 x 2000", 16, 2000, 1}, {"prefill 1 x 512", 1, 512, 512},
                            {"prefill 256 of 768", 1, 768, 256}, {"prefill 16 x 32 of 768", 16, 768, 32}};
    for (auto kernel = runnable_kernels(); *kernel; ++kernel) {
        const auto named = [&](const char * name) { return std::strcmp(name, (*kernel)->name) == 0; };
        if (argc > 1 && std::none_of(argv + 1, argv + argc, named)) continue;
        for (const Shape & s : shapes) report(s, **kernel);
    }
}
