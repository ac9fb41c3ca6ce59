// Hosts of the pooling operators.
#include <ATen/Dispatch.h>
#include <ATen/Functions.h>

#include <tuple>
#include <vector>

#include "../pool_rules.h"
#include "pool_slabs.h"

namespace pspnet::cpu {
namespace {

std::vector<AxisRange> ranges_of(const AxisRule& rule) {
  std::vector<AxisRange> ranges(rule.outputs);
  for (int64_t i = 0; i < rule.outputs; ++i) {
    ranges[i] = rule.range(i);
  }
  return ranges;
}

std::vector<Level> levels_of(const PoolRules& rules) {
  std::vector<Level> levels;
  for (const PoolRule& rule : rules) {
    levels.push_back({ranges_of(rule.rows), ranges_of(rule.cols)});
  }
  return levels;
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

std::vector<at::Tensor> avg_pool_forward(const at::Tensor& input_, const PoolRules& rules) {
  const std::vector<Level> levels = levels_of(rules);
  const auto format = input_.suggest_memory_format();
  const at::Tensor input = input_.contiguous(format);
  auto outputs = empty_outputs(input, rules, input.scalar_type(), format);
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

std::tuple<std::vector<at::Tensor>, std::vector<at::Tensor>> max_pool_forward(
    const at::Tensor& input_, const PoolRules& rules) {
  const std::vector<Level> levels = levels_of(rules);
  const auto format = input_.suggest_memory_format();
  const at::Tensor input = input_.contiguous(format);
  auto outputs = empty_outputs(input, rules, input.scalar_type(), format);
  auto indices = empty_outputs(input, rules, at::kLong, format);
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

at::Tensor avg_pool_backward(at::TensorList grad_outputs_, at::IntArrayRef in_size,
                             const PoolRules& rules) {
  check_pool_gradients(grad_outputs_, {}, rules);
  const std::vector<Level> levels = levels_of(rules);
  const at::Tensor& first = grad_outputs_[0];
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

at::Tensor max_pool_backward(at::TensorList grad_outputs_, at::TensorList indices_,
                             at::IntArrayRef in_size, const PoolRules& rules) {
  check_pool_gradients(grad_outputs_, indices_, rules);
  std::vector<int64_t> outputs;
  for (const PoolRule& rule : rules) {
    outputs.push_back(rule.rows.outputs * rule.cols.outputs);
  }
  const at::Tensor& first = grad_outputs_[0];
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

struct Pooling {
  static constexpr auto avg_forward = &avg_pool_forward;
  static constexpr auto max_forward = &max_pool_forward;
  static constexpr auto avg_backward = &avg_pool_backward;
  static constexpr auto max_backward = &max_pool_backward;
};

}  // namespace

TORCH_LIBRARY_IMPL(pspnet, CPU, m) { register_pooling<Pooling>(m); }

}  // namespace pspnet::cpu
