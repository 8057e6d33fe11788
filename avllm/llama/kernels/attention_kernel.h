// The attention kernel, written once in terms of Simd (a simd_*.h included before) and compiled for
// each instruction set. Everything is local to the including file: the linker must not pick one
// processor's copy for another.
//
// Scores are kept in F32 and the softmax is taken online, a block of cells at a time: Softmax (max,
// sum) and the value sums (acc) are rescaled when a block raises the maximum. (Milakov, Gimelshein 2018)
#pragma once

#include "attention.h"

#include <cfloat>
#include <cmath>
#include <cstring>

namespace {

using avllm::Attention;
using avllm::kBlockCells;
using avllm::KvPool;
using avllm::KvType;
using avllm::RowTile;
using avllm::Unit;
using Vec = Simd::Vec;

constexpr int kLanes = Simd::lanes;
constexpr float kLeast = -FLT_MAX;  // the maximum of nothing: exp(-inf - kLeast) is 0, not NaN

inline int round_up(int n, int step) { return (n + step - 1) / step * step; }
inline int min_of(int a, int b) { return a < b ? a : b; }

// exp(x) for x <= 0 to about 1e-7 relative; 0 below -87. With x = n ln 2 + r, |r| <= ln 2 / 2:
// 2^n times the Taylor polynomial of degree 7, whose error is below 6e-9.
inline Vec exp_nonpositive(Vec x) {
    constexpr float coefficients[] = {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 1.0f / 2, 1.0f, 1.0f};
    const Vec y = Simd::max(x, Simd::set(-87.0f));
    const Vec n = Simd::round(Simd::mul(y, Simd::set(1.44269504f)));
    Vec r = Simd::fma(n, Simd::set(-0.693359375f), y);  // ln 2 in two parts: n times the first is exact
    r = Simd::fma(n, Simd::set(2.12194440e-4f), r);
    Vec p = Simd::set(1.0f / 5040);
    for (float c : coefficients) p = Simd::fma(p, r, Simd::set(c));
    return Simd::keep_if_at_least(x, -87.0f, Simd::scale2(p, n));
}

// tanh(x) = sign(x) (1 - t) / (1 + t), t = exp(-2 |x|)
inline Vec tanh_of(Vec x) {
    const Vec magnitude = Simd::max(x, Simd::sub(Simd::zero(), x));
    const Vec t = exp_nonpositive(Simd::mul(magnitude, Simd::set(-2.0f)));
    const Vec one = Simd::set(1.0f);
    const Vec y = Simd::div(Simd::sub(one, t), Simd::add(one, t));
    const Vec sign = Simd::keep_if_at_least(x, 0.0f, Simd::set(2.0f));
    return Simd::mul(y, Simd::sub(sign, one));
}

// --- reading K and V -----------------------------------------------------------------------------

struct ReadF32 {
    const char * p;
    Vec load(int d) const { return Simd::load(reinterpret_cast<const float *>(p) + d); }
};

struct ReadF16 {
    const char * p;
    Vec load(int d) const { return Simd::load_f16(reinterpret_cast<const uint16_t *>(p) + d); }
};

// Q8_0: blocks of an F16 scale and 32 signed bytes.
struct ReadQ8 {
    const char * p;
    Vec load(int d) const {
        const char * block = p + d / 32 * 34;
        uint16_t scale;
        std::memcpy(&scale, block, sizeof scale);
        return Simd::mul(Simd::load_i8(reinterpret_cast<const int8_t *>(block + 2) + d % 32),
                         Simd::set(Simd::half(scale)));
    }
};

constexpr int kPrefetchCells = 32;

// The vectors of one KV head in the order of a list of cells.
struct CellVectors {
    const char * base;
    size_t stride;
    const int32_t * cells;
    int n_cells;  // as far as prefetching may look
    int size, bytes;

    CellVectors(const KvPool & pool, int stream, int kv_head, const int32_t * cells, int n)
        : base(pool.data + stream * pool.stream_stride + kv_head * pool.head_stride), stride(pool.cell_stride),
          cells(cells), n_cells(n), size(pool.head_size), bytes(bytes_of(pool)) {}

    const char * at(int i) const { return base + size_t(cells[i]) * stride; }

    // Always inline: GCC takes a function that only prefetches for one without effect and drops the call.
    __attribute__((always_inline)) void prefetch(int i) const {
        if (i >= n_cells) return;
        const char * p = at(i);
        for (int b = 0; b < bytes; b += 64) __builtin_prefetch(p + b);
    }
    CellVectors from(int i) const {
        CellVectors rest = *this;
        rest.cells += i;
        rest.n_cells -= i;
        return rest;
    }

  private:
    static int bytes_of(const KvPool & pool) {
        switch (pool.type) {
        case KvType::F32: return pool.head_size * 4;
        case KvType::F16: return pool.head_size * 2;
        default: return pool.head_size / 32 * 34;
        }
    }
};

// --- the softmax of one query vector -------------------------------------------------------------

// Scores of one query vector, padded to whole vectors with -inf, become weights; `rescale` is what
// earlier sums must be multiplied by.
inline float weigh(float * scores, int n, float & max, float & sum) {
    const int padded = round_up(n, kLanes);
    for (int j = n; j < padded; ++j) scores[j] = -INFINITY;
    Vec top = Simd::set(max);
    for (int j = 0; j < padded; j += kLanes) top = Simd::max(top, Simd::load(scores + j));
    const float new_max = Simd::max_of(top);
    const float rescale = new_max > max ? std::exp(max - new_max) : 1.0f;
    max = new_max;
    Vec total = Simd::zero();
    for (int j = 0; j < padded; j += kLanes) {
        const Vec w = exp_nonpositive(Simd::sub(Simd::load(scores + j), Simd::set(max)));
        Simd::store(scores + j, w);
        total = Simd::add(total, w);
    }
    sum = sum * rescale + Simd::sum(total);
    return rescale;
}

inline void soften(float * scores, int n, float cap) {
    for (int j = 0; j < n; j += kLanes)
        Simd::store(scores + j, Simd::mul(Simd::set(cap), tanh_of(Simd::load(scores + j))));
}

// Adds the sink, divides by the sum and writes the output of one query vector.
inline void finish(const Attention & a, const RowTile & t, int row, int head, const float * acc, float max, float sum) {
    float factor = 1;
    if (a.sinks) {
        const float sink = a.sinks[head], top = sink > max ? sink : max;
        factor = std::exp(max - top);
        sum = sum * factor + std::exp(sink - top);
    }
    const Vec f = Simd::set(sum > 0 ? factor / sum : 0.0f);
    float * out = avllm::out_vector(a, t.stream, t.row + row, head);
    for (int d = 0; d < a.v.head_size; d += kLanes) Simd::store(out + d, Simd::mul(Simd::load(acc + d), f));
}

// Query vector i of a unit is head i % group of row i / group.
inline void deliver(const Attention & a, const RowTile & t, const Unit & unit, int query, const float * acc, float max,
                    float sum, float * partials) {
    const int group = avllm::group_size(a), size = a.v.head_size;
    if (unit.partial < 0) {
        finish(a, t, query / group, unit.kv_head * group + query % group, acc, max, sum);
        return;
    }
    float * p = partials + size_t(unit.partial + query) * (2 + size);
    p[0] = max;
    p[1] = sum;
    std::memcpy(p + 2, acc, size * sizeof(float));
}

// Scale of the scores before the soft-cap; it goes into the queries.
inline float query_scale(const Attention & a) { return a.softcap != 0 ? a.scale / a.softcap : a.scale; }

// --- one row: dot products, a group's heads at a time --------------------------------------------

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
void attend_heads(const Attention & a, const RowTile & t, const Unit & unit, int first, RowScratch s, float * partials) {
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

// --- a tile of rows: matrix products over blocks of gathered cells --------------------------------

// c[r][0..VECS) = c[r] * rescale[r] (0 without rescale) + sum over s of a[r * a_row + s * a_step] b[s]
template <int ROWS, int VECS>
void product_block(const float * a, size_t a_row, size_t a_step, const float * b, size_t b_step, int steps, float * c,
                   size_t c_row, const float * rescale) {
    Vec sums[ROWS][VECS];
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 4
        for (int i = 0; i < VECS; ++i)
            sums[r][i] = rescale ? Simd::mul(Simd::load(c + r * c_row + i * kLanes), Simd::set(rescale[r])) : Simd::zero();
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
    const CellVectors k(a.k, t.stream, unit.kv_head, t.cells, unit.end), v(a.v, t.stream, unit.kv_head, t.cells, unit.end);
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

// --- the kernel's entries ------------------------------------------------------------------------

size_t scratch_size(const Attention & a) {
    const size_t row = RowScratch::floats(a), tile = TileScratch::floats(a);
    return row > tile ? row : tile;
}

template <class ReadK, class ReadV>
void run_typed(const Attention & a, const RowTile & t, const Unit & unit, float * scratch, float * partials) {
    if (t.n_rows * avllm::group_size(a) >= Simd::min_tile_queries)
        attend_tile<ReadK, ReadV>(a, t, unit, scratch, partials);
    else
        attend_row<ReadK, ReadV>(a, t, unit, scratch, partials);
}

template <class ReadK>
void run_with_keys(const Attention & a, const RowTile & t, const Unit & unit, float * scratch, float * partials) {
    switch (a.v.type) {
    case KvType::F32: return run_typed<ReadK, ReadF32>(a, t, unit, scratch, partials);
    case KvType::F16: return run_typed<ReadK, ReadF16>(a, t, unit, scratch, partials);
    case KvType::Q8_0: return run_typed<ReadK, ReadQ8>(a, t, unit, scratch, partials);
    }
}

void run(const Attention & a, const RowTile & t, const Unit & unit, float * scratch, float * partials) {
    switch (a.k.type) {
    case KvType::F32: return run_with_keys<ReadF32>(a, t, unit, scratch, partials);
    case KvType::F16: return run_with_keys<ReadF16>(a, t, unit, scratch, partials);
    case KvType::Q8_0: return run_with_keys<ReadQ8>(a, t, unit, scratch, partials);
    }
}

void merge(const Attention & a, const RowTile & t, int kv_head, int query, const float * first, size_t stride,
           int n_partials, float * acc) {
    const int group = avllm::group_size(a), size = a.v.head_size;
    float max = kLeast, sum = 0;
    for (int i = 0; i < n_partials; ++i)
        if (first[i * stride] > max) max = first[i * stride];
    std::memset(acc, 0, size * sizeof(float));
    for (int i = 0; i < n_partials; ++i) {
        const float * p = first + i * stride;
        const float factor = std::exp(p[0] - max);
        sum += p[1] * factor;
        for (int d = 0; d < size; d += kLanes)
            Simd::store(acc + d, Simd::fma(Simd::load(p + 2 + d), Simd::set(factor), Simd::load(acc + d)));
    }
    finish(a, t, query / group, kv_head * group + query % group, acc, max, sum);
}

constexpr avllm::AttentionKernel kernel() {
    return {Simd::name, kLanes, Simd::min_tile_queries, scratch_size, run, merge};
}

}  // namespace
