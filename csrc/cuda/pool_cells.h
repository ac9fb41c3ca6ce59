// Cells of pyramid pooling (see launchers.h): how axes are cut, and which bins are made of which
// cells. The forward rule alone says where bins lie.
#pragma once

#include "packs.h"

namespace pspnet::cuda {

// One axis as the kernels look it up: its cells, and for each level the cells of every bin (forward)
// or the bins of every cell (backward), and the extent of every bin.
struct AxisTable {
  Cells cells;
  uint8_t first[kMaxCellLevels][kMaxCells];
  uint8_t last[kMaxCellLevels][kMaxCells];
  uint16_t extent[kMaxCellLevels][kMaxCells];  // make_cells takes no longer axes
};

inline AxisTable table_of(const Levels& levels, const Cells& cells, bool is_rows, bool of_bins) {
  AxisTable table{};
  table.cells = cells;
  for (int l = 0; l < levels.count; ++l) {
    const AxisRule& rule = is_rows ? levels.at[l].rows : levels.at[l].cols;
    for (int i = 0; i < rule.outputs; ++i) {
      table.extent[l][i] = static_cast<uint16_t>(rule.range(i).extent);
    }
    const int count = of_bins ? static_cast<int>(rule.outputs) : cells.count;
    for (int k = 0; k < count; ++k) {
      int first = 0, last = 0;
      if (of_bins) {
        const AxisRange range = rule.range(k);
        while (cells.edges[first] < range.begin) ++first;
        for (last = first; cells.edges[last] < range.end;) ++last;
      } else {
        while (rule.range(first).end <= cells.edges[k]) ++first;
        for (last = first; last < rule.outputs && rule.range(last).begin <= cells.edges[k];) ++last;
      }
      table.first[l][k] = static_cast<uint8_t>(first);
      table.last[l][k] = static_cast<uint8_t>(last);
    }
  }
  return table;
}

// Of a Level what these kernels read. With two tables it fits into the 4 KB of a launch.
struct Bins {
  int rows, cols;
  void* output;
  int64_t* indices;
  __device__ int count() const { return rows * cols; }
};
struct AllBins {
  int count;
  Bins at[kMaxCellLevels];
  explicit AllBins(const Levels& levels) : count(levels.count), at{} {
    for (int l = 0; l < count; ++l) {
      const Level& level = levels.at[l];
      at[l] = {static_cast<int>(level.rows.outputs), static_cast<int>(level.cols.outputs),
               level.output, level.indices};
    }
  }
};
static_assert(2 * sizeof(AxisTable) + sizeof(AllBins) + sizeof(Image) + 64 <= 4096);

// Cuts an axis where bins of any level begin or end, and longer pieces into even ones.
inline bool cut(const Levels& levels, bool is_rows, int64_t size, Cells* cells) {
  const int64_t fair = ceil_div(size, kMaxCells / 2);
  const int64_t longest = fair > kMaxCellRows ? fair : kMaxCellRows;
  cells->count = 0;
  int64_t edge = 0;
  cells->edges[0] = 0;
  while (edge < size) {
    int64_t next = size;
    for (int l = 0; l < levels.count; ++l) {
      const AxisRule& rule = is_rows ? levels.at[l].rows : levels.at[l].cols;
      for (int64_t i = 0; i < rule.outputs; ++i) {
        const AxisRange range = rule.range(i);
        if (range.begin > edge && range.begin < next) next = range.begin;
        if (range.end > edge && range.end < next) next = range.end;
      }
    }
    const int64_t pieces = ceil_div(next - edge, longest);
    if (cells->count + pieces > kMaxCells) return false;
    for (int64_t k = 1; k <= pieces; ++k) {
      cells->edges[++cells->count] = static_cast<int32_t>(edge + (next - edge) * k / pieces);
    }
    edge = next;
  }
  return true;
}

inline int threads_for(int64_t items) {
  const int64_t warps = ceil_div(items, kWarp);
  return static_cast<int>(warps * kWarp < kThreads ? warps * kWarp : kThreads);
}

inline dim3 grid_of_cells(const Image& image, const Cells& rows, const Cells& cols, int pack) {
  const int64_t packs = image.channels / pack;
  return dim3(blocks_for(packs, threads_for(packs)), rows.count * cols.count,
              grid_yz(image.images));
}

}  // namespace pspnet::cuda
