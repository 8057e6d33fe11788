// A tile of rows: matrix products over blocks of gathered cells. Needs Simd.
#pragma once

#include "softmax.h"

namespace {

// c[r][0..VECS) = c[r] * rescale[r] (0 without rescale) + sum over s of a[r * a_row + s * a_step] b[s]
template <int ROWS, int VECS>
void product_block(const float * a, size_t a_row, size_t a_step, const float * b, size_t b_step, int steps, float * c,
                   size_t c_row, const float * rescale) {
    Vec sums[ROWS][VECS];
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 4
        for (int i = 0; i < VECS; ++i)
            sums[r][i] =
                rescale ? Simd::mul(Simd::load(c + r * c_row + i * kLanes), Simd::set(rescale[r])) : Simd::zero();
    for (int s = 0; s < steps; ++s) {
        Vec x[VECS];
#pragma GCC unroll 4
        for (int i = 0; i < VECS; ++i) x[i] = Simd::load(b + s * b_step + i * kLanes);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r) {
            const Vec w = Simd::set(a[r * a_row + s * a_step]);
#pragma GCC unroll 4
            for (int i = 0; i < VECS; ++i) sums[r][i] = Simd::fma(w, x[i], sums[r][i]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 4
        for (int i = 0; i < VECS; ++i) Simd::store(c + r * c_row + i * kLanes, sums[r][i]);
}

// The same for `rows` rows, the last of them fewer at a time.
template <int VECS, int ROWS = Simd::tile_rows>
void product_rows(int rows, const float * a, size_t a_row, size_t a_step, const float * b, size_t b_step, int steps,
                  float * c, size_t c_row, const float * rescale) {
    int r = 0;
    for (; r + ROWS <= rows; r += ROWS)
        product_block<ROWS, VECS>(a + r * a_row, a_row, a_step, b, b_step, steps, c + r * c_row, c_row,
                                  rescale ? rescale + r : nullptr);
    if constexpr (ROWS > 1)
        if (r < rows)
            product_rows<VECS, ROWS - 1>(rows - r, a + r * a_row, a_row, a_step, b, b_step, steps, c + r * c_row, c_row,
                                         rescale ? rescale + r : nullptr);
}

// The same for `columns` columns (a multiple of the lanes).
template <int VECS = Simd::tile_vecs>
void product(int rows, int columns, const float * a, size_t a_row, size_t a_step, const float * b, size_t b_step,
             int steps, float * c, size_t c_row, const float * rescale) {
    int i = 0;
    for (; i + VECS * kLanes <= columns; i += VECS * kLanes)
        product_rows<VECS>(rows, a, a_row, a_step, b + i, b_step, steps, c + i, c_row, rescale);
    if constexpr (VECS > 1)
        if (i < columns)
            product<VECS - 1>(rows, columns - i, a, a_row, a_step, b + i, b_step, steps, c + i, c_row, rescale);
}

struct TileScratch {
    int width;       // query vectors, rounded up to whole vectors
    float * qt;      // [K head size][width], scaled
    float * scores;  // [kBlockCells][width]
    float * acc;     // [width][V head size]
    float * k;       // [kBlockCells][K head size]
    float * v;       // [kBlockCells][V head size]
    float *max, *sum, *rescale;  // [width]

    TileScratch(const Attention & a, int queries, float * p) : width(round_up(queries, kLanes)) {
        qt = p;
        scores = qt + width * a.k.head_size;
        acc = scores + width * kBlockCells;
        k = acc + width * a.v.head_size;
        v = k + kBlockCells * a.k.head_size;
        max = v + kBlockCells * a.v.head_size;
        sum = max + width;
        rescale = sum + width;
    }
    static size_t floats(const Attention & a) {
        const int most = avllm::group_size(a) > avllm::kMaxTileQueries ? avllm::group_size(a) : avllm::kMaxTileQueries;
        const size_t width = round_up(most, kLanes);
        return (width + kBlockCells) * (a.k.head_size + a.v.head_size) + width * (kBlockCells + 3);
    }
};

template <class Read> void gather(const CellVectors & from, int n, float * to) {
    for (int j = 0; j < n; ++j) {
        from.prefetch(j + kPrefetchCells);
        const Read row{from.at(j)};
        for (int d = 0; d < from.size; d += kLanes) Simd::store(to + j * from.size + d, row.load(d));
    }
}

inline void transpose_queries(const Attention & a, const RowTile & t, int kv_head, const TileScratch & s) {
    const int group = avllm::group_size(a), size = a.k.head_size, queries = t.n_rows * group;
    const float scale = query_scale(a);
    for (int i = 0; i < s.width; ++i) {
        const float * q =
            i < queries ? avllm::q_vector(a, t.stream, t.row + i / group, kv_head * group + i % group) : nullptr;
        for (int d = 0; d < size; ++d) s.qt[d * s.width + i] = q ? q[d] * scale : 0.0f;
    }
}

// Adds the mask to the scores of the block's cells, where not all rows see them all alike.
inline void add_tile_mask(const Attention & a, const RowTile & t, int kv_head, const int32_t * cells, int n,
                          const TileScratch & s) {
    const int group = avllm::group_size(a);
    const float * slopes = a.slopes ? a.slopes + kv_head * group : nullptr;
    for (int row = 0; row < t.n_rows; ++row) {
        const uint16_t * mask = avllm::mask_row(a, t.stream, t.row + row);
        for (int j = 0; j < n; ++j) {
            const uint16_t entry = mask[cells[j]];
            if (entry == 0) continue;
            const float bias = Simd::half(entry);
            float * scores = s.scores + j * s.width + row * group;
            for (int g = 0; g < group; ++g) scores[g] += slopes ? bias * slopes[g] : bias;
        }
    }
}

// The online softmax of all query vectors, one to a lane.
inline void weigh_tile(int n, const TileScratch & s) {
    for (int i = 0; i < s.width; i += kLanes) {
        const Vec old = Simd::load(s.max + i);
        Vec top = old;
        for (int j = 0; j < n; ++j) top = Simd::max(top, Simd::load(s.scores + j * s.width + i));
        const Vec rescale = exp_nonpositive(Simd::sub(old, top));
        Vec sum = Simd::mul(Simd::load(s.sum + i), rescale);
        for (int j = 0; j < n; ++j) {
            float * score = s.scores + j * s.width + i;
            const Vec w = exp_nonpositive(Simd::sub(Simd::load(score), top));
            Simd::store(score, w);
            sum = Simd::add(sum, w);
        }
        Simd::store(s.max + i, top);
        Simd::store(s.sum + i, sum);
        Simd::store(s.rescale + i, rescale);
    }
}

template <class ReadK, class ReadV>
void attend_tile(const Attention & a, const RowTile & t, const Unit & unit, float * scratch, float * partials) {
    const int dk = a.k.head_size, dv = a.v.head_size, queries = t.n_rows * avllm::group_size(a);
    const TileScratch s(a, queries, scratch);
    transpose_queries(a, t, unit.kv_head, s);
    std::memset(s.acc, 0, size_t(s.width) * dv * sizeof(float));
    for (int i = 0; i < s.width; ++i) {
        s.max[i] = kLeast;
        s.sum[i] = 0;
    }
    const CellVectors k(a.k, t.stream, unit.kv_head, t.cells, unit.end);
    const CellVectors v(a.v, t.stream, unit.kv_head, t.cells, unit.end);
    for (int begin = unit.begin; begin < unit.end; begin += kBlockCells) {
        const int n = min_of(kBlockCells, unit.end - begin);
        gather<ReadK>(k.from(begin), n, s.k);
        product(n, s.width, s.k, dk, 1, s.qt, s.width, dk, s.scores, s.width, nullptr);
        if (a.softcap != 0) soften(s.scores, n * s.width, a.softcap);
        if (t.additive || begin + n > t.n_common) add_tile_mask(a, t, unit.kv_head, t.cells + begin, n, s);
        weigh_tile(n, s);
        gather<ReadV>(v.from(begin), n, s.v);
        product(queries, dv, s.scores, 1, s.width, s.v, dv, n, s.acc, dv, s.rescale);
    }
    for (int i = 0; i < queries; ++i) deliver(a, t, unit, i, s.acc + i * dv, s.max[i], s.sum[i], partials);
}

}  // namespace
