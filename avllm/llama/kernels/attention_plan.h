// Which rows go together, which cells they see, and how the work is cut for the threads.
#pragma once

#include "attention.h"

#include <vector>

namespace avllm {

struct AttentionPlan {
    std::vector<RowTile> tiles;
    std::vector<int> splits;         // ranges that a tile's cells are cut into, by tile
    std::vector<int> first_partial;  // index of a tile's first partial result, or -1
    std::vector<Unit> units;
    size_t n_partials = 0;  // partial results to provide room for

    // Reads the mask and cuts the work for `threads` threads.
    AttentionPlan(const Attention & a, const AttentionKernel & kernel, int threads);
    AttentionPlan(const AttentionPlan &) = delete;  // tiles point into cell_lists
    AttentionPlan & operator=(const AttentionPlan &) = delete;
    AttentionPlan(AttentionPlan &&) = default;
    AttentionPlan & operator=(AttentionPlan &&) = default;

    // Calls merge(tile, kv_head, query, first, stride, n) for what was cut: n partial results, the
    // first and every stride-th after it; of the calls only every `step`-th, from `start` on.
    template <class Merge> void for_each_merge(const Attention & a, Merge merge, int start = 0, int step = 1) const {
        for (size_t i = 0; i < tiles.size(); ++i) {
            if (splits[i] == 1) continue;
            const int queries = tiles[i].n_rows * group_size(a);
            for (int item = start; item < a.kv_heads * queries; item += step) {
                const int kv_head = item / queries, query = item % queries;
                merge(tiles[i], kv_head, query, first_partial[i] + size_t(kv_head) * splits[i] * queries + query,
                      size_t(queries), splits[i]);
            }
        }
    }

  private:
    std::vector<std::vector<int32_t>> cell_lists;

    void add_stream(const Attention & a, const AttentionKernel & kernel, int stream);
    void cut(const Attention & a, int threads);
    friend class TileBuilder;
};

}  // namespace avllm
