// The attention kernel, written once in terms of Simd (a simd_*.h included before) and compiled for
// each instruction set. Everything is local to the including file: the linker must not pick one
// processor's copy for another.
#pragma once

#include "attend_row.h"
#include "attend_tile.h"

namespace {

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
