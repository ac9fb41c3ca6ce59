// What the pooling operators of every device have in common: checked arguments become rules, one
// for each map, and the operators' names are given to four functions of the device.
#pragma once

#include <ATen/Functions.h>
#include <torch/library.h>

#include <limits>
#include <tuple>
#include <vector>

#include "checks.h"

namespace pspnet {

struct PoolRule {
  AxisRule rows;
  AxisRule cols;
};
using PoolRules = std::vector<PoolRule>;

inline PoolRules window_rules(at::IntArrayRef size, at::IntArrayRef kernel, at::IntArrayRef stride,
                              at::IntArrayRef padding) {
  check_window(size, kernel, stride, padding);
  const bool padded = padding[0] != 0 || padding[1] != 0;
  const auto axis = [&](int a) {
    return AxisRule{size[a],
                    window_output_size(size[a], kernel[a], stride[a], padding[a], padded),
                    kernel[a], stride[a], padding[a]};
  };
  return {{axis(0), axis(1)}};
}

inline PoolRules bin_rules(at::IntArrayRef size, at::IntArrayRef bins) {
  check_bins(bins, size[0], size[1]);
  PoolRules rules;
  for (const int64_t b : bins) {
    rules.push_back({{size[0], b, 0, 0, 0}, {size[1], b, 0, 0, 0}});
  }
  return rules;
}

inline std::vector<int64_t> output_sizes(const at::Tensor& like, const PoolRule& rule) {
  return {like.size(0), like.size(1), rule.rows.outputs, rule.cols.outputs};
}

inline std::vector<at::Tensor> empty_outputs(const at::Tensor& input, const PoolRules& rules,
                                             at::ScalarType dtype, at::MemoryFormat format) {
  std::vector<at::Tensor> outputs;
  for (const PoolRule& rule : rules) {
    outputs.push_back(at::empty(output_sizes(input, rule), input.options().dtype(dtype), format));
  }
  return outputs;
}

// All tensors in one memory format.
inline std::vector<at::Tensor> dense(at::TensorList tensors, at::MemoryFormat format) {
  std::vector<at::Tensor> result;
  for (const at::Tensor& t : tensors) result.push_back(t.contiguous(format));
  return result;
}

// One gradient for each map, of one dtype and number of images and channels; `indices` likewise, or
// empty.
inline void check_pool_gradients(at::TensorList grad_outputs, at::TensorList indices,
                                 const PoolRules& rules) {
  TORCH_CHECK(grad_outputs.size() == rules.size(), "grad_outputs must be one tensor a level, ",
              rules.size(), ", got ", grad_outputs.size());
  TORCH_CHECK(indices.empty() || indices.size() == rules.size(),
              "indices must be one tensor a level, ", rules.size(), ", got ", indices.size());
  for (size_t k = 0; k < rules.size(); ++k) {
    check_image(grad_outputs[k], "grad_output");
    check_same_dtype(grad_outputs[k], "grad_output", grad_outputs[0]);
    const auto sizes = output_sizes(grad_outputs[0], rules[k]);
    check_same(grad_outputs[k], "grad_output", sizes, grad_outputs[0]);
    if (indices.empty()) continue;
    check_same(indices[k], "indices", sizes, grad_outputs[0]);
    TORCH_CHECK(indices[k].scalar_type() == at::kLong, "indices must be int64, got ",
                indices[k].scalar_type());
  }
}

inline void check_max_pool_size(const at::Tensor& input) {
  TORCH_CHECK(input.size(2) * input.size(3) <= std::numeric_limits<int32_t>::max(),
              "input must have at most 2^31 - 1 pixels a plane for max pooling, got ",
              input.size(2) * input.size(3));
}

// Device::avg_forward(input, rules) and max_forward give a map, or maps and indices, for each rule;
// avg_backward(grad_outputs, in_size, rules) and max_backward, with indices, the input's gradient.
template <typename Device>
void register_pooling(torch::Library& m) {
  using at::IntArrayRef, at::Tensor, at::TensorList;
  m.impl("window_avg_pool2d", [](const Tensor& input, IntArrayRef kernel_size, IntArrayRef stride,
                                 IntArrayRef padding) {
    check_image(input, "input");
    return Device::avg_forward(
        input, window_rules(input.sizes().slice(2), kernel_size, stride, padding))[0];
  });
  m.impl("window_avg_pool2d_backward",
         [](const Tensor& grad_output, IntArrayRef in_size, IntArrayRef kernel_size,
            IntArrayRef stride, IntArrayRef padding) {
           check_pair(in_size, "in_size", 1);
           return Device::avg_backward({grad_output}, in_size,
                                       window_rules(in_size, kernel_size, stride, padding));
         });
  m.impl("window_max_pool2d", [](const Tensor& input, IntArrayRef kernel_size, IntArrayRef stride,
                                 IntArrayRef padding) {
    check_image(input, "input");
    check_max_pool_size(input);
    const auto [outputs, indices] = Device::max_forward(
        input, window_rules(input.sizes().slice(2), kernel_size, stride, padding));
    return std::make_tuple(outputs[0], indices[0]);
  });
  m.impl("window_max_pool2d_backward",
         [](const Tensor& grad_output, const Tensor& indices, IntArrayRef in_size,
            IntArrayRef kernel_size, IntArrayRef stride, IntArrayRef padding) {
           check_pair(in_size, "in_size", 1);
           return Device::max_backward({grad_output}, {indices}, in_size,
                                       window_rules(in_size, kernel_size, stride, padding));
         });
  m.impl("pyramid_avg_pool2d", [](const Tensor& input, IntArrayRef bins) {
    check_image(input, "input");
    return Device::avg_forward(input, bin_rules(input.sizes().slice(2), bins));
  });
  m.impl("pyramid_avg_pool2d_backward",
         [](TensorList grad_outputs, IntArrayRef in_size, IntArrayRef bins) {
           check_pair(in_size, "in_size", 1);
           return Device::avg_backward(grad_outputs, in_size, bin_rules(in_size, bins));
         });
  m.impl("pyramid_max_pool2d", [](const Tensor& input, IntArrayRef bins) {
    check_image(input, "input");
    check_max_pool_size(input);
    return Device::max_forward(input, bin_rules(input.sizes().slice(2), bins));
  });
  m.impl("pyramid_max_pool2d_backward",
         [](TensorList grad_outputs, TensorList indices, IntArrayRef in_size, IntArrayRef bins) {
           check_pair(in_size, "in_size", 1);
           return Device::max_backward(grad_outputs, indices, in_size, bin_rules(in_size, bins));
         });
}

}  // namespace pspnet
