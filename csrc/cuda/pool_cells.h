// Cells of pyramid pooling (see launchers.h): how axes are cut, and which bins are made of which
// cells. The forward rule alone says where bins lie.
#pragma once

#include "launch.h"

namespace pspnet::cuda {

// Where a level's element lies, found from its number in the level's own memory format.
struct Element {
  int64_t outer;    // image for channels-last data, else plane
  int64_t channel;  // 0 for planes
  int row;
  int col;
};
__device__ inline Element element_of(int64_t index, int64_t channels, int height, int width) {
  const Split channel = split(index, channels);
  const Split col = split(channel.quotient, width);
  const Split row = split(col.quotient, height);
  return {row.quotient, channel.remainder, static_cast<int>(row.remainder),
          static_cast<int>(col.remainder)};
}

// For every bin its cells, or for every cell its bins.
inline CellRanges ranges_of(const Levels& levels, const Cells& cells, bool is_rows, bool of_bins) {
  CellRanges ranges{};
  for (int l = 0; l < levels.count; ++l) {
    const AxisRule& rule = is_rows ? levels.at[l].rows : levels.at[l].cols;
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
      ranges.first[l][k] = static_cast<uint8_t>(first);
      ranges.last[l][k] = static_cast<uint8_t>(last);
    }
  }
  return ranges;
}

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

inline unsigned int images_a_grid(const Image& image) {
  return static_cast<unsigned int>(image.images < 65535 ? image.images : 65535);
}

inline int threads_for(int64_t items) {
  const int64_t warps = ceil_div(items, kWarp);
  return static_cast<int>(warps * kWarp < kThreads ? warps * kWarp : kThreads);
}

inline dim3 grid_of_cells(const Image& image, const Cells& rows, const Cells& cols, int pack) {
  const int64_t packs = image.channels / pack;
  return dim3(blocks_for(packs, threads_for(packs)), rows.count * cols.count,
              images_a_grid(image));
}

}  // namespace pspnet::cuda
