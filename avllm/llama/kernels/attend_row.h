// One row: dot products with each cell's K, the heads of a group at a time. Needs Simd.
#pragma once

#include "softmax.h"

namespace {

// scores[h][j] = q[h] . K[j]: K is read once for all heads, four cells at a time. Meanwhile the block's
// V comes nearer (the first block's: later ones' did before).
template <class Read, int HEADS>
void dot_scores(const CellVectors & k, const CellVectors & v, int n, const float * q, float * scores) {
    for (int j = 0; j < n; j += 4) {
        Vec sums[HEADS][4];
        Read rows[4];
        for (int i = 0; i < 4; ++i) {
            rows[i] = {k.at(min_of(j + i, n - 1))};
            k.prefetch(j + i + kPrefetchCells);
            v.prefetch(j + i);
        }
#pragma GCC unroll 8
        for (int h = 0; h < HEADS; ++h)
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) sums[h][i] = Simd::zero();
        for (int d = 0; d < k.size; d += kLanes) {
            Vec x[4];
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) x[i] = rows[i].load(d);
#pragma GCC unroll 8
            for (int h = 0; h < HEADS; ++h) {
                const Vec qd = Simd::load(q + h * k.size + d);
#pragma GCC unroll 4
                for (int i = 0; i < 4; ++i) sums[h][i] = Simd::fma(x[i], qd, sums[h][i]);
            }
        }
#pragma GCC unroll 8
        for (int h = 0; h < HEADS; ++h)
            Simd::store_sums(scores + h * kBlockCells + j, sums[h][0], sums[h][1], sums[h][2], sums[h][3]);
    }
}

// acc[h] = acc[h] * rescale[h] + sum over j of weights[h][j] V[j], VECS vectors of it from d on. Meanwhile
// the next block's V comes nearer.
template <class Read, int HEADS, int VECS>
void add_values_part(const CellVectors & v, int n, int d, const float * weights, const float * rescale, float * acc) {
    Vec sums[HEADS][VECS];
#pragma GCC unroll 8
    for (int h = 0; h < HEADS; ++h)
#pragma GCC unroll 4
        for (int i = 0; i < VECS; ++i)
            sums[h][i] = Simd::mul(Simd::load(acc + h * v.size + d + i * kLanes), Simd::set(rescale[h]));
    for (int j = 0; j < n; ++j) {
        const Read row{v.at(j)};
        if (d == 0) v.prefetch(j + kBlockCells);
        Vec x[VECS];
#pragma GCC unroll 4
        for (int i = 0; i < VECS; ++i) x[i] = row.load(d + i * kLanes);
#pragma GCC unroll 8
        for (int h = 0; h < HEADS; ++h) {
            const Vec w = Simd::set(weights[h * kBlockCells + j]);
#pragma GCC unroll 4
            for (int i = 0; i < VECS; ++i) sums[h][i] = Simd::fma(w, x[i], sums[h][i]);
        }
    }
#pragma GCC unroll 8
    for (int h = 0; h < HEADS; ++h)
#pragma GCC unroll 4
        for (int i = 0; i < VECS; ++i) Simd::store(acc + h * v.size + d + i * kLanes, sums[h][i]);
}

template <class Read, int HEADS>
void add_values(const CellVectors & v, int n, const float * weights, const float * rescale, float * acc) {
    int d = 0;
    for (; d + 4 * kLanes <= v.size; d += 4 * kLanes)
        add_values_part<Read, HEADS, 4>(v, n, d, weights, rescale, acc);
    for (; d < v.size; d += kLanes) add_values_part<Read, HEADS, 1>(v, n, d, weights, rescale, acc);
}

struct RowScratch {
    float * q;       // [group][K head size], scaled
    float * acc;     // [group][V head size]
    float * scores;  // [max_heads][kBlockCells]

    RowScratch(const Attention & a, float * p)
        : q(p), acc(q + avllm::group_size(a) * a.k.head_size), scores(acc + avllm::group_size(a) * a.v.head_size) {}
    static size_t floats(const Attention & a) {
        return size_t(avllm::group_size(a)) * (a.k.head_size + a.v.head_size) + Simd::max_heads * kBlockCells;
    }
};

inline void add_mask(const uint16_t * mask, const int32_t * cells, int n, float slope, float * scores) {
    for (int j = 0; j < n; ++j) scores[j] += slope * Simd::half(mask[cells[j]]);
}

// HEADS heads of the group from `first` on, over all cells of the unit.
template <class ReadK, class ReadV, int HEADS>
void attend_heads(const Attention & a, const RowTile & t, const Unit & unit, int first, RowScratch s,
                  float * partials) {
    const int n_cells = unit.end - unit.begin;
    const int32_t * cells = t.cells + unit.begin;
    const CellVectors k(a.k, t.stream, unit.kv_head, cells, n_cells), v(a.v, t.stream, unit.kv_head, cells, n_cells);
    const float * slopes = a.slopes ? a.slopes + unit.kv_head * avllm::group_size(a) + first : nullptr;
    const float * q = s.q + first * a.k.head_size;
    float * acc = s.acc + first * a.v.head_size;
    float max[HEADS], sum[HEADS], rescale[HEADS];
    for (int h = 0; h < HEADS; ++h) {
        max[h] = kLeast;
        sum[h] = 0;
    }
    for (int begin = 0; begin < n_cells; begin += kBlockCells) {
        const int n = min_of(kBlockCells, n_cells - begin);
        const CellVectors block_v = v.from(begin);
        dot_scores<ReadK, HEADS>(k.from(begin), block_v, n, q, s.scores);
        for (int h = 0; h < HEADS; ++h) {
            float * scores = s.scores + h * kBlockCells;
            if (a.softcap != 0) soften(scores, n, a.softcap);
            if (t.additive)
                add_mask(avllm::mask_row(a, t.stream, t.row), cells + begin, n, slopes ? slopes[h] : 1.0f, scores);
            rescale[h] = weigh(scores, n, max[h], sum[h]);
        }
        add_values<ReadV, HEADS>(block_v, n, s.scores, rescale, acc);
    }
    for (int h = 0; h < HEADS; ++h)
        deliver(a, t, unit, first + h, acc + h * a.v.head_size, max[h], sum[h], partials);
}

template <class ReadK, class ReadV, int HEADS = Simd::max_heads>
void attend_some_heads(const Attention & a, const RowTile & t, const Unit & unit, int first, int heads, RowScratch s,
                       float * partials) {
    if (heads == HEADS) return attend_heads<ReadK, ReadV, HEADS>(a, t, unit, first, s, partials);
    if constexpr (HEADS > 1) attend_some_heads<ReadK, ReadV, HEADS - 1>(a, t, unit, first, heads, s, partials);
}

template <class ReadK, class ReadV>
void attend_row(const Attention & a, const RowTile & t, const Unit & unit, float * scratch, float * partials) {
    const int group = avllm::group_size(a), size = a.k.head_size;
    const RowScratch s(a, scratch);
    std::memset(s.acc, 0, size_t(group) * a.v.head_size * sizeof(float));
    const Vec scale = Simd::set(query_scale(a));
    for (int g = 0; g < group; ++g) {
        const float * q = avllm::q_vector(a, t.stream, t.row, unit.kv_head * group + g);
        for (int d = 0; d < size; d += kLanes) Simd::store(s.q + g * size + d, Simd::mul(Simd::load(q + d), scale));
    }
    const int passes = (group + Simd::max_heads - 1) / Simd::max_heads;
    for (int pass = 0, first = 0; pass < passes; ++pass) {
        const int heads = (group - first + passes - pass - 1) / (passes - pass);
        attend_some_heads<ReadK, ReadV>(a, t, unit, first, heads, s, partials);
        first += heads;
    }
}

}  // namespace
