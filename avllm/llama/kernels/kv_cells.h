// Reading the vectors of K and V: their types, and where those of a list of cells lie. Needs Simd.
#pragma once

#include "attention.h"

#include <cstring>

namespace {

using avllm::KvPool;
using avllm::KvType;
using Vec = Simd::Vec;

constexpr int kLanes = Simd::lanes;

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

}  // namespace
