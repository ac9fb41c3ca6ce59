// Hosts of the pooling operators.
#include <ATen/Dispatch.h>
#include <ATen/Functions.h>
#include <torch/library.h>

#include <limits>
#include <tuple>
#include <vector>

#include "../checks.h"
#include "pool_slabs.h"

namespace pspnet::cpu {
namespace {

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
        for_each_slab<Lanes<acc_t>::kCount>(
            first.size(0), first.size(1), [&](int64_t image, int64_t channel, int64_t lanes) {
              avg_backward_slab<scalar_t, acc_t>(
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
