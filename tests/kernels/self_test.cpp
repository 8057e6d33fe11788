// The kernels without ggml, against the same sums in F64: for processors whose kernels must be
// cross-compiled and emulated. Ends with status 1 on the first wrong number.
#include "attention_choice.h"
#include "attention_plan.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>

using namespace avllm;

namespace {

std::mt19937 random_bits(7);

float normal() { return std::normal_distribution<float>()(random_bits); }

int between(int least, int most) { return least + int(random_bits() % (most - least + 1)); }

// Numbers that F16 and Q8_0 hold exactly: small whole multiples of 1/16.
float sixteenths() { return float(between(-31, 31)) / 16; }

uint16_t to_half(float x) {
    if (x == 0) return 0;
    int exponent;
    const float fraction = std::frexp(std::fabs(x), &exponent);  // 0.5 to 1
    return uint16_t((x < 0 ? 0x8000 : 0) | (exponent + 14) << 10 | (int(fraction * 2048) & 0x3FF));
}

struct Stored {
    std::vector<char> bytes;
    std::vector<float> exact;

    Stored(KvType type, size_t n) : exact(n) {
        for (float & x : exact) x = sixteenths();
        for (size_t i = 0; i < n; ++i) {
            const float x = exact[i];
            if (type == KvType::F32) append(&x, sizeof x);
            const uint16_t half = to_half(type == KvType::Q8_0 ? 0.0625f : x);
            if (type == KvType::F16 || (type == KvType::Q8_0 && i % 32 == 0)) append(&half, sizeof half);
            const int8_t quant = int8_t(x * 16);
            if (type == KvType::Q8_0) append(&quant, sizeof quant);
        }
    }
    void append(const void * p, size_t n) {
        bytes.insert(bytes.end(), static_cast<const char *>(p), static_cast<const char *>(p) + n);
    }
};

size_t bytes_of(KvType type, size_t n) {
    return type == KvType::F32 ? n * 4 : type == KvType::F16 ? n * 2 : n / 32 * 34;
}

struct Problem {
    int rows, heads, kv_heads, cells, size;
    KvType type;
    Stored k, v;
    std::vector<float> q, out, sinks, slopes;
    std::vector<uint16_t> mask;
    std::vector<double> bias;
    Attention a{};

    Problem(int rows, int kv_heads, int group, int cells, int size, KvType type, bool options)
        : rows(rows), heads(kv_heads * group), kv_heads(kv_heads), cells(cells), size(size), type(type),
          k(type, size_t(cells) * kv_heads * size), v(type, k.exact.size()), q(size_t(rows) * heads * size),
          out(q.size(), NAN), mask(size_t(rows) * cells), bias(mask.size()) {
        for (float & x : q) x = normal();
        fill_mask(options);
        const size_t head = bytes_of(type, size), cell = kv_heads * head;
        a.rows = rows, a.heads = heads, a.kv_heads = kv_heads, a.cells = cells, a.streams = a.mask_streams = 1;
        a.scale = 1 / std::sqrt(float(size));
        a.q = reinterpret_cast<const char *>(q.data());
        a.q_row_stride = heads * size * sizeof(float), a.q_head_stride = size * sizeof(float);
        a.k = {k.bytes.data(), type, size, cell, head, 0};
        a.v = {v.bytes.data(), type, size, cell, head, 0};
        a.mask = reinterpret_cast<const char *>(mask.data()), a.mask_row_stride = cells * sizeof(uint16_t);
        a.out = out.data();
        if (!options) return;
        for (int h = 0; h < heads; ++h) {
            sinks.push_back(normal());
            slopes.push_back(std::exp2(-float(h)));
        }
        a.sinks = sinks.data(), a.slopes = slopes.data(), a.softcap = 3;
    }

    // Two sequences side by side in the pool, each with half of the rows; with options the mask counts.
    void fill_mask(bool options) {
        for (int r = 0; r < rows; ++r)
            for (int c = 0; c < cells; ++c) {
                const bool second = r >= rows / 2;
                const bool seen = second == (c % 3 == 0) && c <= cells - rows + r;
                const float entry = options ? -float(c % 7) : 0;
                mask[size_t(r) * cells + c] = seen ? to_half(entry) : 0xFC00;
                bias[size_t(r) * cells + c] = seen ? entry : -INFINITY;
            }
    }

    void run(const AttentionKernel & kernel, int threads) {
        const AttentionPlan plan(a, kernel, threads);
        std::vector<float> scratch(kernel.scratch_size(a)), partials(plan.n_partials * (2 + size));
        for (const Unit & u : plan.units) kernel.run(a, plan.tiles[u.tile], u, scratch.data(), partials.data());
        plan.for_each_merge(a, [&](const RowTile & tile, int kv_head, int query, size_t first, size_t stride, int n) {
            kernel.merge(a, tile, kv_head, query, partials.data() + first * (2 + size), stride * (2 + size), n,
                         scratch.data());
        });
    }

    // Largest difference to the sums in F64.
    double error() const {
        double worst = 0;
        for (int r = 0; r < rows; ++r)
            for (int h = 0; h < heads; ++h) worst = std::max(worst, error_of(r, h));
        return worst;
    }

    double error_of(int row, int head) const {
        const auto vector = [&](const Stored & s, int cell) {
            return s.exact.data() + (size_t(cell) * kv_heads + head / (heads / kv_heads)) * size;
        };
        const float * query = q.data() + (size_t(row) * heads + head) * size;
        std::vector<double> expected(size, 0.0);
        double total = a.sinks ? std::exp(double(sinks[head])) : 0;
        for (int c = 0; c < cells; ++c) {
            double score = 0;
            for (int d = 0; d < size; ++d) score += double(query[d]) * vector(k, c)[d];
            score *= a.scale;
            if (a.softcap != 0) score = a.softcap * std::tanh(score / a.softcap);
            const double weight = std::exp(score + (a.slopes ? slopes[head] : 1.0) * bias[size_t(row) * cells + c]);
            total += weight;
            for (int d = 0; d < size; ++d) expected[d] += weight * vector(v, c)[d];
        }
        double worst = 0;
        for (int d = 0; d < size; ++d) {
            const double wanted = total > 0 ? expected[d] / total : 0;
            const double difference = std::fabs(out[(size_t(row) * heads + head) * size + d] - wanted);
            worst = std::isnan(difference) ? INFINITY : std::max(worst, difference);
        }
        return worst;
    }
};

}  // namespace

int main() {
    int problems = 0;
    for (auto kernel = runnable_kernels(); *kernel; ++kernel)
        for (KvType type : {KvType::F32, KvType::F16, KvType::Q8_0})
            for (int size : {64, 96, 128})
                for (int rows : {1, 2, 34})
                    for (bool options : {false, true}) {
                        Problem p(rows, between(1, 3), between(1, 9), between(rows, 400), size, type, options);
                        p.run(**kernel, between(1, 4));
                        const double error = p.error();
                        if (error > 3e-6) {
                            std::printf("%s: type %d, %d rows, %d heads, %d KV heads, %d cells, size %d: off by %g\n",
                                        (*kernel)->name, int(type), rows, p.heads, p.kv_heads, p.cells, size, error);
                            return 1;
                        }
                        ++problems;
                    }
    std::printf("%d problems, best kernel %s\n", problems, runnable_kernels()[0]->name);
}
