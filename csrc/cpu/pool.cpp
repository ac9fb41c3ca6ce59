// Average and maximum pooling over windows and over pyramids of bins. Both are the same loop over
// levels of rectangles; only the rule that gives the rectangles differs (geometry.h).
#include <ATen/Dispatch.h>
#include <ATen/Functions.h>
#include <torch/library.h>

#include <cfloat>
#include <limits>
#include <tuple>
#include <vector>

#include "../checks.h"
#include "lanes.h"

namespace pspnet::cpu {
namespace {

// The rectangles of one output map.
struct Level {
  std::vector<AxisRange> rows;
  std::vector<AxisRange> cols;
  int64_t outputs() const { return static_cast<int64_t>(rows.size() * cols.size()); }
};

std::vector<AxisRange> window_axis(int64_t size, int64_t kernel, int64_t stride, int64_t padding,
                                   bool padded) {
  std::vector<AxisRange> ranges(window_output_size(size, kernel, stride, padding, padded));
  for (size_t i = 0; i < ranges.size(); ++i) {
    ranges[i] = window_range(i, size, kernel, stride, padding);
  }
  return ranges;
}

std::vector<Level> window_levels(at::IntArrayRef size, at::IntArrayRef kernel,
                                 at::IntArrayRef stride, at::IntArrayRef padding) {
  const bool padded = padding[0] != 0 || padding[1] != 0;
  return {{window_axis(size[0], kernel[0], stride[0], padding[0], padded),
           window_axis(size[1], kernel[1], stride[1], padding[1], padded)}};
}

std::vector<Level> bin_levels(at::IntArrayRef size, at::IntArrayRef bins) {
  std::vector<Level> levels(bins.size());
  for (size_t k = 0; k < bins.size(); ++k) {
    for (int64_t i = 0; i < bins[k]; ++i) {
      levels[k].rows.push_back(bin_range(i, size[0], bins[k]));
      levels[k].cols.push_back(bin_range(i, size[1], bins[k]));
    }
  }
  return levels;
}

// Walks the rows of an image and keeps, for one level, which output rows cover the current one.
struct RowCursor {
  size_t first = 0;
  size_t last = 0;
  bool move(const Level& level, int64_t y) {
    const size_t old_first = first, old_last = last;
    while (first < level.rows.size() && level.rows[first].end <= y) ++first;
    while (last < level.rows.size() && level.rows[last].begin <= y) ++last;
    return first != old_first || last != old_last;
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
  const Vec<acc_t>* pixels = vectors(row);
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
        Vec<acc_t>* values = vectors(best[k]) + i * cols.size();
        Vec<index_t>* sources = vectors(where[k]) + i * cols.size();
        for (size_t j = 0; j < cols.size(); ++j) {
          Vec<acc_t> value = values[j];
          Vec<index_t> index = sources[j];
          for (int64_t x = cols[j].begin; x < cols[j].end; ++x) {
            const Vec<acc_t> candidate = pixels[x];
            // The first maximum wins, and the first NaN for good.
            const auto take = (candidate > value) | ((candidate != candidate) & (value == value));
            value = take ? candidate : value;
            index = take ? Vec<index_t>{} + static_cast<index_t>(y * in_w + x) : index;
          }
          values[j] = value;
          sources[j] = index;
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
// windows; rows covered by the same outputs are computed once. kWidth is 1 for planes.
template <int64_t kWidth, typename scalar_t, typename acc_t>
void avg_backward_slab(const std::vector<const scalar_t*>& grad_outputs, const Layout& layout,
                       int64_t in_h, int64_t in_w, int64_t lanes,
                       const std::vector<Level>& levels, scalar_t* grad_input) {
  std::vector<Buffer<acc_t>> shares;
  for (size_t k = 0; k < levels.size(); ++k) {
    const Level& level = levels[k];
    shares.push_back(make_buffer<acc_t>(level.outputs() * kWidth));
    const Layout out_layout{layout.channels, level.outputs(), layout.channels_last};
    load_lanes<kWidth>(grad_outputs[k], out_layout, lanes, level.outputs(), shares[k].get());
    acc_t* share = shares[k].get();
    for (const AxisRange& r : level.rows) {
      for (const AxisRange& c : level.cols) {
        const acc_t area = static_cast<acc_t>(r.extent * c.extent);
        for (int64_t l = 0; l < kWidth; ++l) {
          *share++ /= area;
        }
      }
    }
  }
  const auto row = make_buffer<acc_t>(in_w * kWidth);
  std::vector<RowCursor> cursors(levels.size());
  for (int64_t y = 0; y < in_h; ++y) {
    bool changed = y == 0;
    for (size_t k = 0; k < levels.size(); ++k) {
      changed |= cursors[k].move(levels[k], y);
    }
    if (changed) {
      std::fill_n(row.get(), in_w * kWidth, acc_t(0));
      for (size_t k = 0; k < levels.size(); ++k) {
        const auto& cols = levels[k].cols;
        for (size_t i = cursors[k].first; i < cursors[k].last; ++i) {
          for (size_t j = 0; j < cols.size(); ++j) {
            const acc_t* share = shares[k].get() + (i * cols.size() + j) * kWidth;
            for (int64_t x = cols[j].begin; x < cols[j].end; ++x) {
              for (int64_t l = 0; l < kWidth; ++l) {
                row[x * kWidth + l] += share[l];
              }
            }
          }
        }
      }
    }
    store_lanes<kWidth>(row.get(), layout, lanes, in_w,
                        grad_input + y * in_w * layout.pixel_stride());
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

std::vector<at::Tensor> empty_outputs(const at::Tensor& input, const std::vector<Level>& levels,
                                      at::ScalarType dtype, at::MemoryFormat format) {
  std::vector<at::Tensor> outputs;
  for (const Level& level : levels) {
    outputs.push_back(at::empty({input.size(0), input.size(1),
                                 static_cast<int64_t>(level.rows.size()),
                                 static_cast<int64_t>(level.cols.size())},
                                input.options().dtype(dtype), format));
  }
  return outputs;
}

template <typename T>
std::vector<T*> pointers_at(const std::vector<at::Tensor>& tensors, at::MemoryFormat format,
                            int64_t image, int64_t channel) {
  std::vector<T*> result;
  for (const at::Tensor& t : tensors) {
    result.push_back(static_cast<T*>(t.data_ptr()) +
                     layout_of(t, format).offset(image, channel));
  }
  return result;
}

std::vector<at::Tensor> avg_forward(const at::Tensor& input_, const std::vector<Level>& levels) {
  const auto format = input_.suggest_memory_format();
  const at::Tensor input = input_.contiguous(format);
  auto outputs = empty_outputs(input, levels, input.scalar_type(), format);
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, input.scalar_type(), "avg_pool2d", [&] {
        using acc_t = at::opmath_type<scalar_t>;
        const Layout layout = layout_of(input, format);
        for_each_slab<Lanes<acc_t>::kCount>(
            input.size(0), input.size(1), [&](int64_t image, int64_t channel, int64_t lanes) {
              avg_slab<scalar_t, acc_t>(
                  input.const_data_ptr<scalar_t>() + layout.offset(image, channel), layout,
                  input.size(2), input.size(3), lanes, levels,
                  pointers_at<scalar_t>(outputs, format, image, channel));
            });
      });
  return outputs;
}

std::tuple<std::vector<at::Tensor>, std::vector<at::Tensor>> max_forward(
    const at::Tensor& input_, const std::vector<Level>& levels) {
  TORCH_CHECK(input_.size(2) * input_.size(3) <= std::numeric_limits<int32_t>::max(),
              "input must have at most 2^31 - 1 pixels a plane for max pooling, got ",
              input_.size(2) * input_.size(3));
  const auto format = input_.suggest_memory_format();
  const at::Tensor input = input_.contiguous(format);
  auto outputs = empty_outputs(input, levels, input.scalar_type(), format);
  auto indices = empty_outputs(input, levels, at::kLong, format);
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, input.scalar_type(), "max_pool2d", [&] {
        using acc_t = at::opmath_type<scalar_t>;
        const Layout layout = layout_of(input, format);
        for_each_slab<Lanes<acc_t>::kCount>(
            input.size(0), input.size(1), [&](int64_t image, int64_t channel, int64_t lanes) {
              max_slab<scalar_t, acc_t>(
                  input.const_data_ptr<scalar_t>() + layout.offset(image, channel), layout,
                  input.size(2), input.size(3), lanes, levels,
                  pointers_at<scalar_t>(outputs, format, image, channel),
                  pointers_at<int64_t>(indices, format, image, channel));
            });
      });
  return {outputs, indices};
}

// All gradients in the memory format of the first.
std::vector<at::Tensor> dense(at::TensorList tensors, at::MemoryFormat format) {
  std::vector<at::Tensor> result;
  for (const at::Tensor& t : tensors) {
    result.push_back(t.contiguous(format));
  }
  return result;
}

at::Tensor avg_backward(at::TensorList grad_outputs_, at::IntArrayRef in_size,
                        const std::vector<Level>& levels) {
  const at::Tensor& first = grad_outputs_[0];
  for (size_t k = 0; k < levels.size(); ++k) {
    check_image(grad_outputs_[k], "grad_output");
    check_same_dtype(grad_outputs_[k], "grad_output", first);
    check_same(grad_outputs_[k], "grad_output",
               {first.size(0), first.size(1), static_cast<int64_t>(levels[k].rows.size()),
                static_cast<int64_t>(levels[k].cols.size())}, first);
  }
  const auto format = first.suggest_memory_format();
  const auto grad_outputs = dense(grad_outputs_, format);
  at::Tensor grad_input = at::empty({first.size(0), first.size(1), in_size[0], in_size[1]},
                                    first.options(), format);
  advise_huge_pages(grad_input);
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, first.scalar_type(), "avg_pool2d_backward", [&] {
        using acc_t = at::opmath_type<scalar_t>;
        const Layout layout = layout_of(grad_input, format);
        for_each_slab_of<acc_t>(format, grad_input, [&](auto width, int64_t image,
                                                        int64_t channel, int64_t lanes) {
          avg_backward_slab<decltype(width)::value, scalar_t, acc_t>(
              pointers_at<const scalar_t>(grad_outputs, format, image, channel), layout,
              in_size[0], in_size[1], lanes, levels,
              grad_input.mutable_data_ptr<scalar_t>() + layout.offset(image, channel));
        });
      });
  return grad_input;
}

at::Tensor window_avg_pool2d(const at::Tensor& input, at::IntArrayRef kernel_size,
                             at::IntArrayRef stride, at::IntArrayRef padding) {
  check_image(input, "input");
  check_window(input.sizes().slice(2), kernel_size, stride, padding);
  return avg_forward(input, window_levels(input.sizes().slice(2), kernel_size, stride, padding))[0];
}

at::Tensor window_avg_pool2d_backward(const at::Tensor& grad_output, at::IntArrayRef in_size,
                                      at::IntArrayRef kernel_size, at::IntArrayRef stride,
                                      at::IntArrayRef padding) {
  check_pair(in_size, "in_size", 1);
  check_window(in_size, kernel_size, stride, padding);
  return avg_backward({grad_output}, in_size,
                      window_levels(in_size, kernel_size, stride, padding));
}

std::tuple<at::Tensor, at::Tensor> window_max_pool2d(const at::Tensor& input,
                                                     at::IntArrayRef kernel_size,
                                                     at::IntArrayRef stride,
                                                     at::IntArrayRef padding) {
  check_image(input, "input");
  check_window(input.sizes().slice(2), kernel_size, stride, padding);
  auto [outputs, indices] = max_forward(
      input, window_levels(input.sizes().slice(2), kernel_size, stride, padding));
  return {outputs[0], indices[0]};
}

std::vector<at::Tensor> pyramid_avg_pool2d(const at::Tensor& input, at::IntArrayRef bins) {
  check_image(input, "input");
  check_bins(bins, input.size(2), input.size(3));
  return avg_forward(input, bin_levels(input.sizes().slice(2), bins));
}

at::Tensor pyramid_avg_pool2d_backward(at::TensorList grad_outputs, at::IntArrayRef in_size,
                                       at::IntArrayRef bins) {
  check_pair(in_size, "in_size", 1);
  check_bins(bins, in_size[0], in_size[1]);
  TORCH_CHECK(grad_outputs.size() == bins.size(), "grad_outputs must be one tensor a level, ",
              bins.size(), ", got ", grad_outputs.size());
  return avg_backward(grad_outputs, in_size, bin_levels(in_size, bins));
}

std::tuple<std::vector<at::Tensor>, std::vector<at::Tensor>> pyramid_max_pool2d(
    const at::Tensor& input, at::IntArrayRef bins) {
  check_image(input, "input");
  check_bins(bins, input.size(2), input.size(3));
  return max_forward(input, bin_levels(input.sizes().slice(2), bins));
}

at::Tensor max_pool2d_backward(at::TensorList grad_outputs_, at::TensorList indices_,
                               at::IntArrayRef in_size) {
  check_pair(in_size, "in_size", 1);
  TORCH_CHECK(!grad_outputs_.empty() && grad_outputs_.size() == indices_.size(),
              "indices must be one tensor a gradient, ", grad_outputs_.size(), ", got ",
              indices_.size());
  const at::Tensor& first = grad_outputs_[0];
  std::vector<int64_t> outputs;
  for (size_t k = 0; k < grad_outputs_.size(); ++k) {
    check_image(grad_outputs_[k], "grad_output");
    check_same_dtype(grad_outputs_[k], "grad_output", first);
    check_same(indices_[k], "indices", grad_outputs_[k].sizes(), first);
    TORCH_CHECK(indices_[k].scalar_type() == at::kLong, "indices must be int64, got ",
                indices_[k].scalar_type());
    TORCH_CHECK(grad_outputs_[k].sizes().slice(0, 2) == first.sizes().slice(0, 2),
                "grad_outputs must agree in N and C, got ", grad_outputs_[k].sizes(), " beside ",
                first.sizes());
    outputs.push_back(grad_outputs_[k].size(2) * grad_outputs_[k].size(3));
  }
  const auto format = first.suggest_memory_format();
  const auto grad_outputs = dense(grad_outputs_, format);
  const auto indices = dense(indices_, format);
  at::Tensor grad_input = at::empty({first.size(0), first.size(1), in_size[0], in_size[1]},
                                    first.options(), format);
  advise_huge_pages(grad_input);
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, first.scalar_type(), "max_pool2d_backward", [&] {
        using acc_t = at::opmath_type<scalar_t>;
        const Layout layout = layout_of(grad_input, format);
        for_each_slab_of<acc_t>(format, grad_input, [&](auto width, int64_t image,
                                                        int64_t channel, int64_t lanes) {
          max_backward_slab<decltype(width)::value, scalar_t, acc_t>(
              pointers_at<const scalar_t>(grad_outputs, format, image, channel),
              pointers_at<const int64_t>(indices, format, image, channel), outputs, layout, lanes,
              grad_input.mutable_data_ptr<scalar_t>() + layout.offset(image, channel));
        });
      });
  return grad_input;
}

}  // namespace

TORCH_LIBRARY_IMPL(pspnet, CPU, m) {
  m.impl("window_avg_pool2d", &window_avg_pool2d);
  m.impl("window_avg_pool2d_backward", &window_avg_pool2d_backward);
  m.impl("window_max_pool2d", &window_max_pool2d);
  m.impl("pyramid_avg_pool2d", &pyramid_avg_pool2d);
  m.impl("pyramid_avg_pool2d_backward", &pyramid_avg_pool2d_backward);
  m.impl("pyramid_max_pool2d", &pyramid_max_pool2d);
  m.impl("max_pool2d_backward", &max_pool2d_backward);
}

}  // namespace pspnet::cpu
