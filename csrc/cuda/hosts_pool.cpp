// From tensors to launchers: pooling.
#include <ATen/Functions.h>

#include <tuple>
#include <vector>

#include "../pool_rules.h"
#include "device.h"
#include "tensors.h"

namespace pspnet::cuda {
namespace {

Levels levels_of(const PoolRules& rules, const std::vector<at::Tensor>& outputs,
                 const std::vector<at::Tensor>& indices) {
  TORCH_CHECK(rules.size() <= kMaxLevels, "bins must have at most ", kMaxLevels,
              " levels on CUDA, got ", rules.size());
  Levels levels{};
  levels.count = static_cast<int>(rules.size());
  for (size_t k = 0; k < rules.size(); ++k) {
    levels.at[k] = {rules[k].rows, rules[k].cols, outputs[k].data_ptr(),
                    indices.empty() ? nullptr : indices[k].data_ptr<int64_t>(), nullptr};
  }
  return levels;
}

// Working memory in which each image and channel has `count` numbers.
at::Tensor workspace(const at::Tensor& like, int64_t count, at::ScalarType dtype) {
  return at::empty({count}, like.options().dtype(dtype));
}

void pool_forward(const at::Tensor& input, const PoolRules& rules, at::MemoryFormat format,
                  const std::vector<at::Tensor>& outputs,
                  const std::vector<at::Tensor>& indices) {
  if (outputs[0].numel() == 0) return;
  const DeviceGuard guard(input.device());
  const Stream stream = current_stream();
  const DType dtype = dtype_of(input);
  const Image image = image_of(input, format);
  const Levels levels = levels_of(rules, outputs, indices);
  const bool max = !indices.empty();
  Cells rows, cols;
  if (rules[0].rows.kernel > 0 || !make_cells(levels, image, dtype, &rows, &cols)) {
    for (int k = 0; k < levels.count; ++k) {
      launch_pool_forward(dtype, image, input.const_data_ptr(), levels.at[k], stream);
      PSPNET_CHECK_LAUNCH();
    }
    return;
  }
  const int64_t cells = image.images * image.channels * rows.count * cols.count;
  const at::Tensor values = workspace(input, cells, accumulate_type(input));
  const at::Tensor pixels = workspace(input, max ? cells : 0, at::kInt);
  int32_t* pixel_data = pixels.data_ptr<int32_t>();
  launch_pyramid_cells(dtype, max, image, input.const_data_ptr(), rows, cols, values.data_ptr(),
                       pixel_data, stream);
  PSPNET_CHECK_LAUNCH();
  launch_pyramid_combine(dtype, max, image, levels, rows, cols, values.data_ptr(), pixel_data,
                         stream);
  PSPNET_CHECK_LAUNCH();
}

std::vector<at::Tensor> avg_pool_forward(const at::Tensor& input_, const PoolRules& rules) {
  const auto format = input_.suggest_memory_format();
  const at::Tensor input = input_.contiguous(format);
  const auto outputs = empty_outputs(input, rules, input.scalar_type(), format);
  pool_forward(input, rules, format, outputs, {});
  return outputs;
}

std::tuple<std::vector<at::Tensor>, std::vector<at::Tensor>> max_pool_forward(
    const at::Tensor& input_, const PoolRules& rules) {
  const auto format = input_.suggest_memory_format();
  const at::Tensor input = input_.contiguous(format);
  const auto outputs = empty_outputs(input, rules, input.scalar_type(), format);
  const auto indices = empty_outputs(input, rules, at::kLong, format);
  pool_forward(input, rules, format, outputs, indices);
  return {outputs, indices};
}

at::Tensor pool_backward(at::TensorList grad_outputs_, at::TensorList indices_,
                         at::IntArrayRef in_size, const PoolRules& rules) {
  check_pool_gradients(grad_outputs_, indices_, rules);
  const at::Tensor& first = grad_outputs_[0];
  const auto format = first.suggest_memory_format();
  const auto grad_outputs = dense(grad_outputs_, format), indices = dense(indices_, format);
  const at::Tensor grad_input = at::empty({first.size(0), first.size(1), in_size[0], in_size[1]},
                                          first.options(), format);
  if (grad_input.numel() == 0) return grad_input;
  const DeviceGuard guard(first.device());
  const Stream stream = current_stream();
  const DType dtype = dtype_of(first);
  const Image image = image_of(grad_input, format);
  Levels levels = levels_of(rules, grad_outputs, indices);
  Cells rows, cols;
  if (rules[0].rows.kernel == 0 && indices.empty() &&
      make_cells(levels, image, dtype, &rows, &cols)) {
    launch_pyramid_backward(dtype, image, levels, rows, cols, grad_input.data_ptr(), stream);
    PSPNET_CHECK_LAUNCH();
    return grad_input;
  }
  const int64_t entries = image.height + image.width;
  const at::Tensor covers = workspace(first, levels.count * entries, at::kLong);
  for (int k = 0; k < levels.count; ++k) {
    Cover* target = covers_in(covers) + k * entries;
    launch_pool_covers(levels.at[k], target, stream);
    PSPNET_CHECK_LAUNCH();
    levels.at[k].covers = target;
  }
  launch_pool_backward(dtype, image, levels, grad_input.data_ptr(), stream);
  PSPNET_CHECK_LAUNCH();
  return grad_input;
}

at::Tensor avg_pool_backward(at::TensorList grad_outputs, at::IntArrayRef in_size,
                             const PoolRules& rules) {
  return pool_backward(grad_outputs, {}, in_size, rules);
}

struct Pooling {
  static constexpr auto avg_forward = &avg_pool_forward;
  static constexpr auto max_forward = &max_pool_forward;
  static constexpr auto avg_backward = &avg_pool_backward;
  static constexpr auto max_backward = &pool_backward;
};

}  // namespace

PSPNET_LIBRARY_IMPL(m) { register_pooling<Pooling>(m); }

}  // namespace pspnet::cuda
