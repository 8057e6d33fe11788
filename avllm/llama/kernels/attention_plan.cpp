#include "attention_plan.h"

#include <algorithm>
#include <cstring>

namespace avllm {

using Words = std::vector<uint64_t>;

namespace {

constexpr uint64_t kEach16 = 0x0001000100010001u;
constexpr uint16_t kHidden = 0xFC00;  // F16 -inf

// The top bit of each 16-bit lane of x that is not zero.
uint64_t nonzero_lanes(uint64_t x) {
    constexpr uint64_t low = 0x7FFF * kEach16;
    return (((x & low) + low) | x) & ~low;
}

// Bits of the cells that a mask row lets through, 64 to a word; tells whether any of their entries is
// neither 0 nor -0. Four entries at a time: a pool is mostly cells of other sequences.
bool read_mask_row(const uint16_t * mask, int cells, uint64_t * words) {
    uint64_t additive = 0;
    for (int base = 0; base < cells; base += 64) {
        const int n = std::min(64, cells - base);
        uint64_t word = 0;
        int c = 0;
        for (; c + 4 <= n; c += 4) {
            uint64_t four;
            std::memcpy(&four, mask + base + c, sizeof four);
            const uint64_t visible = nonzero_lanes(four ^ (kHidden * kEach16));
            additive |= visible & nonzero_lanes(four & (0x7FFF * kEach16));
            // lanes' top bits 15, 31, 47, 63 -> bits 0 to 3
            word |= (((visible >> 15) * 0x1000200040008u) >> 48 & 0xF) << c;
        }
        for (; c < n; ++c) {
            const uint16_t entry = mask[base + c];
            word |= uint64_t(entry != kHidden) << c;
            additive |= entry != kHidden && (entry & 0x7FFF) != 0;
        }
        words[base / 64] = word;
    }
    return additive != 0;
}

int count(const Words & words) {
    int n = 0;
    for (uint64_t w : words) n += __builtin_popcountll(w);
    return n;
}

void append_cells(const Words & words, const Words * except, std::vector<int32_t> & cells) {
    for (size_t i = 0; i < words.size(); ++i)
        for (uint64_t w = words[i] & (except ? ~(*except)[i] : ~uint64_t(0)); w; w &= w - 1)
            cells.push_back(int32_t(i * 64 + __builtin_ctzll(w)));
}

}  // namespace

// Takes the rows of one stream in order and closes a tile where the next row sees other cells.
class TileBuilder {
  public:
    TileBuilder(AttentionPlan & plan, const Attention & a, const AttentionKernel & kernel, int stream)
        : plan(plan), stream(stream), group(group_size(a)), min_queries(kernel.min_tile_queries),
          max_rows(std::max(1, kMaxTileQueries / group)) {}

    void add(int row, Words visible, bool additive) {
        const int n = count(visible);
        if (!rows.empty() && !accepts(visible, n)) close();
        if (rows.empty()) {
            first_row = row;
            any = all = visible;
            n_least = n;
        } else {
            join(visible, n);
        }
        rows.push_back({std::move(visible), additive});
    }

    void close() {
        if (int(rows.size()) * group >= min_queries) {
            emit(first_row, int(rows.size()), any, all,
                 std::any_of(rows.begin(), rows.end(), [](const Row & r) { return r.additive; }));
        } else {
            for (size_t i = 0; i < rows.size(); ++i)
                emit(first_row + int(i), 1, rows[i].visible, rows[i].visible, rows[i].additive);
        }
        rows.clear();
    }

  private:
    struct Row {
        Words visible;
        bool additive;
    };

    AttentionPlan & plan;
    const int stream, group, min_queries, max_rows;
    int first_row = 0, n_least = 0;
    Words any, all;
    std::vector<Row> rows;

    // A tile works on the union of what its rows see: the row that sees least may waste a block or a
    // quarter. Rows of one sequence, and sequences that share a long prefix, pass.
    bool accepts(const Words & visible, int n) const {
        if (int(rows.size()) >= max_rows) return false;
        int n_union = 0;
        for (size_t i = 0; i < any.size(); ++i) n_union += __builtin_popcountll(any[i] | visible[i]);
        const int least = std::min(n_least, n);
        return n_union - least <= std::max(kBlockCells, least / 4);
    }

    void join(const Words & visible, int n) {
        for (size_t i = 0; i < any.size(); ++i) {
            any[i] |= visible[i];
            all[i] &= visible[i];
        }
        n_least = std::min(n_least, n);
    }

    void emit(int row, int n_rows, const Words & seen_by_any, const Words & seen_by_all, bool additive) {
        std::vector<int32_t> cells;
        append_cells(seen_by_all, nullptr, cells);
        const int n_common = int(cells.size());
        if (n_rows > 1) append_cells(seen_by_any, &seen_by_all, cells);
        plan.cell_lists.push_back(std::move(cells));
        const auto & list = plan.cell_lists.back();
        plan.tiles.push_back({stream, row, n_rows, list.data(), int(list.size()), n_common, additive});
    }
};

AttentionPlan::AttentionPlan(const Attention & a, const AttentionKernel & kernel, int threads) {
    for (int stream = 0; stream < a.streams; ++stream) add_stream(a, kernel, stream);
    cut(a, threads);
}

void AttentionPlan::add_stream(const Attention & a, const AttentionKernel & kernel, int stream) {
    TileBuilder builder(*this, a, kernel, stream);
    for (int row = 0; row < a.rows; ++row) {
        Words visible((a.cells + 63) / 64, ~uint64_t(0));
        bool additive = false;
        if (a.mask)
            additive = read_mask_row(mask_row(a, stream, row), a.cells, visible.data());
        else if (a.cells % 64)
            visible.back() = (uint64_t(1) << a.cells % 64) - 1;
        builder.add(row, std::move(visible), additive);
    }
    builder.close();
}

// A unit is at most a quarter of a thread's share (so that a slow thread is not waited for), unless
// that would be less than a block.
void AttentionPlan::cut(const Attention & a, int threads) {
    size_t total = 0;
    for (const RowTile & t : tiles) total += size_t(t.n_cells) * t.n_rows * a.kv_heads;
    const size_t largest = total / (size_t(threads) * 4) + 1;
    for (size_t i = 0; i < tiles.size(); ++i) {
        const RowTile & t = tiles[i];
        const int blocks = (t.n_cells + kBlockCells - 1) / kBlockCells;
        const int wanted = int(size_t(t.n_cells) * t.n_rows / largest) + 1;
        const int pieces = std::max(1, std::min(wanted, blocks));
        const int range = (blocks + pieces - 1) / pieces * kBlockCells;
        const int n = range ? (t.n_cells + range - 1) / range : 1;
        const int queries = t.n_rows * group_size(a);
        splits.push_back(n);
        first_partial.push_back(n > 1 ? int(n_partials) : -1);
        for (int kv_head = 0; kv_head < a.kv_heads; ++kv_head)
            for (int s = 0; s < n; ++s) {
                const int partial = n > 1 ? int(n_partials) : -1;
                if (n > 1) n_partials += queries;
                units.push_back({int(i), kv_head, s * range, std::min(t.n_cells, (s + 1) * range), partial});
            }
    }
}

}  // namespace avllm
