// Average and maximum pooling over windows and over pyramids of bins, one slab of channels at a
// time. Both are the same loop over levels of rectangles; only the rule that gives the rectangles
// differs (geometry.h).
#pragma once

#include <c10/util/Exception.h>

#include <cfloat>
#include <limits>
#include <vector>

#include "../geometry.h"
#include "lanes.h"
#include "registers.h"

namespace pspnet::cpu {

constexpr int64_t kBandRows = 16;  // different rows that a backward pass keeps before it copies

// The rectangles of one output map.
struct Level {
  std::vector<AxisRange> rows;
  std::vector<AxisRange> cols;
  int64_t outputs() const { return static_cast<int64_t>(rows.size() * cols.size()); }
};

// Walks the rows of an image and keeps, for one level, which output rows cover the current one.
struct RowCursor {
  size_t first = 0;
  size_t last = 0;
  // Returns the row at which the cover changes next.
  int64_t move(const Level& level, int64_t y) {
    const size_t count = level.rows.size();
    while (first < count && level.rows[first].end <= y) ++first;
    while (last < count && level.rows[last].begin <= y) ++last;
    int64_t next = std::numeric_limits<int64_t>::max();
    if (first < count) next = std::min(next, level.rows[first].end);
    if (last < count) next = std::min(next, level.rows[last].begin);
    return next;
  }
};

// Forward passes stream each row once through every level, with kCount channels side by side; an
// output's elements arrive in row order, so sums and first maxima are the original's.
template <typename scalar_t, typename acc_t>
void avg_slab(const scalar_t* input, const Layout& layout, int64_t in_h, int64_t in_w,
              int64_t lanes, const std::vector<Level>& levels,
              const std::vector<scalar_t*>& outputs) {
  constexpr int64_t kWidth = Lanes<acc_t>::kCount;
  const auto row = make_buffer<acc_t>(in_w * kWidth);
  const Vec<acc_t>* pixels = vectors(row);
  std::vector<Buffer<acc_t>> sums;
  for (const Level& level : levels) {
    sums.push_back(make_buffer<acc_t>(level.outputs() * kWidth));
    std::fill_n(sums.back().get(), level.outputs() * kWidth, acc_t(0));
  }
  std::vector<RowCursor> cursors(levels.size());
  for (int64_t y = 0; y < in_h; ++y) {
    load_lanes<kWidth>(input + y * in_w * layout.pixel_stride(), layout, lanes, in_w,
                       row.get());
    for (size_t k = 0; k < levels.size(); ++k) {
      const auto& cols = levels[k].cols;
      cursors[k].move(levels[k], y);
      for (size_t i = cursors[k].first; i < cursors[k].last; ++i) {
        Vec<acc_t>* target = vectors(sums[k]) + i * cols.size();
        for (size_t j = 0; j < cols.size(); ++j) {
          Vec<acc_t> sum = target[j];
          for (int64_t x = cols[j].begin; x < cols[j].end; ++x) {
            sum += pixels[x];
          }
          target[j] = sum;
        }
      }
    }
  }
  for (size_t k = 0; k < levels.size(); ++k) {
    const Level& level = levels[k];
    Vec<acc_t>* sum = vectors(sums[k]);
    for (const AxisRange& r : level.rows) {
      for (const AxisRange& c : level.cols) {
        *sum++ /= static_cast<acc_t>(r.extent * c.extent);
      }
    }
    const Layout out_layout{layout.channels, level.outputs(), layout.channels_last};
    store_lanes<kWidth>(sums[k].get(), out_layout, lanes, level.outputs(), outputs[k]);
  }
}

template <typename scalar_t, typename acc_t>
void max_slab(const scalar_t* input, const Layout& layout, int64_t in_h, int64_t in_w,
              int64_t lanes, const std::vector<Level>& levels,
              const std::vector<scalar_t*>& outputs, const std::vector<int64_t*>& indices) {
  constexpr int64_t kWidth = Lanes<acc_t>::kCount;
  using index_t = LaneIndex<acc_t>;
  const auto row = make_buffer<acc_t>(in_w * kWidth);
  using Values = Register<acc_t>;
  using Indices = Register<index_t>;
  constexpr int64_t kParts = kWidth / RegisterOf<acc_t>::kCount;
  const Values* pixels = reinterpret_cast<const Values*>(row.get());
  std::vector<Buffer<acc_t>> best;
  std::vector<Buffer<index_t>> where;
  for (const Level& level : levels) {
    best.push_back(make_buffer<acc_t>(level.outputs() * kWidth));
    where.push_back(make_buffer<index_t>(level.outputs() * kWidth));
    std::fill_n(best.back().get(), level.outputs() * kWidth, static_cast<acc_t>(-FLT_MAX));
    std::fill_n(where.back().get(), level.outputs() * kWidth, index_t(-1));
  }
  std::vector<RowCursor> cursors(levels.size());
  for (int64_t y = 0; y < in_h; ++y) {
    load_lanes<kWidth>(input + y * in_w * layout.pixel_stride(), layout, lanes, in_w,
                       row.get());
    for (size_t k = 0; k < levels.size(); ++k) {
      const auto& cols = levels[k].cols;
      cursors[k].move(levels[k], y);
      for (size_t i = cursors[k].first; i < cursors[k].last; ++i) {
        const size_t places = cols.size() * kParts;
        Values* values = reinterpret_cast<Values*>(best[k].get()) + i * places;
        Indices* sources = reinterpret_cast<Indices*>(where[k].get()) + i * places;
        for (size_t at = 0; at < places; ++at) {
          const AxisRange& col = cols[at / kParts];
          Values value = values[at];
          Indices index = sources[at];
          for (int64_t x = col.begin; x < col.end; ++x) {
            const Values candidate = pixels[x * kParts + at % kParts];
            // The first maximum wins, and the first NaN for good.
            const auto take = (candidate > value) | ((candidate != candidate) & (value == value));
            value = take ? candidate : value;
            index = take ? Indices{} + static_cast<index_t>(y * in_w + x) : index;
          }
          values[at] = value;
          sources[at] = index;
        }
      }
    }
  }
  for (size_t k = 0; k < levels.size(); ++k) {
    const int64_t count = levels[k].outputs();
    const Layout out_layout{layout.channels, count, layout.channels_last};
    store_lanes<kWidth>(best[k].get(), out_layout, lanes, count, outputs[k]);
    store_lanes<kWidth>(where[k].get(), out_layout, lanes, count, indices[k]);
  }
}

// Each input row gathers its gradient from the outputs that cover it, in the order of levels and
// windows. Rows covered by the same outputs are computed once; a band of different rows is then
// copied plane after plane, since interleaving the planes would write at half the speed.
template <typename scalar_t, typename acc_t>
void avg_backward_slab(const std::vector<const scalar_t*>& grad_outputs, const Layout& layout,
                       int64_t in_h, int64_t in_w, int64_t lanes,
                       const std::vector<Level>& levels, scalar_t* grad_input) {
  constexpr int64_t kWidth = Lanes<acc_t>::kCount;
  std::vector<Buffer<acc_t>> shares;
  for (size_t k = 0; k < levels.size(); ++k) {
    const Level& level = levels[k];
    shares.push_back(make_buffer<acc_t>(level.outputs() * kWidth));
    const Layout out_layout{layout.channels, level.outputs(), layout.channels_last};
    load_lanes<kWidth>(grad_outputs[k], out_layout, lanes, level.outputs(), shares[k].get());
    Vec<acc_t>* share = vectors(shares[k]);
    for (const AxisRange& r : level.rows) {
      for (const AxisRange& c : level.cols) {
        *share++ /= static_cast<acc_t>(r.extent * c.extent);
      }
    }
  }
  const auto row = make_buffer<acc_t>(in_w * kWidth);
  const auto band = make_buffer<scalar_t>(kBandRows * kWidth * in_w);
  Vec<acc_t>* pixels = vectors(row);
  std::vector<RowCursor> cursors(levels.size());
  std::vector<int64_t> repeats;
  for (int64_t y = 0, next, band_begin = 0; y < in_h; y = next) {
    next = in_h;
    std::fill_n(row.get(), in_w * kWidth, acc_t(0));
    for (size_t k = 0; k < levels.size(); ++k) {
      const auto& cols = levels[k].cols;
      next = std::min(next, cursors[k].move(levels[k], y));
      for (size_t i = cursors[k].first; i < cursors[k].last; ++i) {
        for (size_t j = 0; j < cols.size(); ++j) {
          const Vec<acc_t> share = vectors(shares[k])[i * cols.size() + j];
          for (int64_t x = cols[j].begin; x < cols[j].end; ++x) {
            pixels[x] += share;
          }
        }
      }
    }
    if (layout.channels_last) {
      for (int64_t i = y; i < next; ++i) {
        store_lanes<kWidth>(row.get(), layout, lanes, in_w,
                            grad_input + i * in_w * layout.channels);
      }
      continue;
    }
    const Layout band_layout{lanes, kBandRows * in_w, false};
    store_lanes<kWidth>(row.get(), band_layout, lanes, in_w,
                        band.get() + static_cast<int64_t>(repeats.size()) * in_w);
    repeats.push_back(next - y);
    if (repeats.size() == kBandRows || next == in_h) {
      for (int64_t l = 0; l < lanes; ++l) {
        const scalar_t* source = band.get() + l * band_layout.pixels;
        scalar_t* target = grad_input + l * layout.pixels + band_begin * in_w;
        for (const int64_t count : repeats) {
          for (int64_t i = 0; i < count; ++i) {
            target = std::copy_n(source, in_w, target);
          }
          source += in_w;
        }
      }
      repeats.clear();
      band_begin = next;
    }
  }
}

template <int64_t kWidth, typename scalar_t, typename acc_t>
void max_backward_slab(const std::vector<const scalar_t*>& grad_outputs,
                       const std::vector<const int64_t*>& indices,
                       const std::vector<int64_t>& outputs, const Layout& layout, int64_t lanes,
                       scalar_t* grad_input) {
  const auto plane = make_buffer<acc_t>(layout.pixels * kWidth);
  std::fill_n(plane.get(), layout.pixels * kWidth, acc_t(0));
  for (size_t k = 0; k < grad_outputs.size(); ++k) {
    const Layout out_layout{layout.channels, outputs[k], layout.channels_last};
    for (int64_t p = 0; p < outputs[k]; ++p) {
      for (int64_t l = 0; l < lanes; ++l) {
        const int64_t at = p * out_layout.pixel_stride() + l * out_layout.channel_stride();
        const int64_t source = indices[k][at];
        TORCH_CHECK(source < layout.pixels, "indices must be less than H * W = ", layout.pixels,
                    ", got ", source);
        if (source >= 0) {
          plane[source * kWidth + l] += static_cast<acc_t>(grad_outputs[k][at]);
        }
      }
    }
  }
  store_lanes<kWidth>(plane.get(), layout, lanes, layout.pixels, grad_input);
}

}  // namespace pspnet::cpu
