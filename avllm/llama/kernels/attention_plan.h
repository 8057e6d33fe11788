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

  private:
    std::vector<std::vector<int32_t>> cell_lists;

    void add_stream(const Attention & a, const AttentionKernel & kernel, int stream);
    void cut(const Attention & a, int threads);
    friend class TileBuilder;
};

}  // namespace avllm
