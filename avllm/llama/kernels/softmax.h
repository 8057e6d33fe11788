// The online softmax: scores are kept in F32 and taken a block of cells at a time; the maximum, the sum
// and the value sums are rescaled when a block raises the maximum. (Milakov, Gimelshein 2018) Needs Simd.
#pragma once

#include "attention.h"
#include "kv_cells.h"

#include <cfloat>
#include <cmath>
#include <cstring>

namespace {

using avllm::Attention;
using avllm::kBlockCells;
using avllm::RowTile;
using avllm::Unit;

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

}  // namespace
