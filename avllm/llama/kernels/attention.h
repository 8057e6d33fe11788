// Attention of many rows over one KV pool: the problem, the kernels that solve it, and nothing of ggml.
//
// A row is one query token, a cell is one slot of the KV pool, a group is the query heads that share
// one KV head. A row sees the cells whose mask entry is not -inf. All strides are in bytes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace avllm {

enum class KvType { F32, F16, Q8_0 };

// K or V of the whole pool: one vector of head_size numbers per (stream, KV head, cell).
struct KvPool {
    const char * data;
    KvType type;
    int head_size;
    size_t cell_stride, head_stride, stream_stride;
};

struct Attention {
    int rows, heads, kv_heads, cells, streams;
    float scale;
    float softcap;         // 0: none; else scores become softcap * tanh(score / softcap)
    const float * slopes;  // ALiBi: what the mask is multiplied by, per head; null: 1

    const char * q;  // F32
    size_t q_row_stride, q_head_stride, q_stream_stride;
    KvPool k, v;

    const char * mask;  // F16, added to the scores; null: every row sees every cell
    size_t mask_row_stride, mask_stream_stride;
    int mask_streams;

    const float * sinks;  // one extra score per head, with no value behind it; or null

    float * out;  // [streams][rows][heads][v.head_size]
};

// Static, as is everything here that has a body: each kernel's file is compiled for another processor
// and must not lend its copy to the others.
static inline int group_size(const Attention & a) { return a.heads / a.kv_heads; }

static inline const uint16_t * mask_row(const Attention & a, int stream, int row) {
    return reinterpret_cast<const uint16_t *>(a.mask + (stream % a.mask_streams) * a.mask_stream_stride +
                                              row * a.mask_row_stride);
}

static inline const float * q_vector(const Attention & a, int stream, int row, int head) {
    return reinterpret_cast<const float *>(a.q + stream * a.q_stream_stride + row * a.q_row_stride +
                                           head * a.q_head_stride);
}

static inline float * out_vector(const Attention & a, int stream, int row, int head) {
    return a.out + ((size_t(stream) * a.rows + row) * a.heads + head) * a.v.head_size;
}

constexpr int kBlockCells = 64;     // cells between two updates of the online softmax
constexpr int kMaxTileQueries = 64; // query vectors (rows x heads of a group) of one tile

// Rows that are worked on together, and the cells that any of them sees: first those that all of
// them see, then the rest, for which the mask decides row by row.
struct RowTile {
    int stream, row, n_rows;
    const int32_t * cells;
    int n_cells, n_common;
    bool additive;  // some visible mask entry is not zero: the mask must be added
};

// A part of the work that one thread does in one go: a tile, a KV head, a range of the tile's cells.
struct Unit {
    int tile, kv_head, begin, end;
    int partial;  // index of the first partial result to write; -1: write the output
};

// One instruction set's kernels.
struct AttentionKernel {
    const char * name;
    int lanes;             // floats of one vector: head sizes must be multiples of it
    int min_tile_queries;  // fewer query vectors than this are better off row by row
    // Floats that a thread needs as scratch.
    size_t (*scratch_size)(const Attention &);
    // Computes one unit. A partial result is {max, sum, v.head_size values not divided by the sum}
    // for each of n_rows x group query vectors.
    void (*run)(const Attention &, const RowTile &, const Unit &, float * scratch, float * partials);
    // Combines the partial results of query vector `query` of a tile; `first` is the one of its first
    // range of cells, `stride` the floats from one range to the next.
    void (*merge)(const Attention &, const RowTile &, int kv_head, int query, const float * first,
                  size_t stride, int n_partials, float * scratch);
};

extern const AttentionKernel attention_portable;
extern const AttentionKernel attention_avx2;
extern const AttentionKernel attention_avx512;
extern const AttentionKernel attention_neon;

}  // namespace avllm
