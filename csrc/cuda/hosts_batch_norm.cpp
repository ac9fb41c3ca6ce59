// From tensors to launchers: the local steps of batch normalization.
#include <ATen/Functions.h>
#include <torch/library.h>

#include <tuple>

#include "../batch_norm_inputs.h"
#include "device.h"
#include "tensors.h"

namespace pspnet::cuda {
namespace {

// A reduction of every channel: fill(image, partials) leaves partial results, finish(image,
// partials, first, second) makes two numbers a channel of them.
template <typename Fill, typename Finish>
std::tuple<at::Tensor, at::Tensor> reduce_channels(const at::Tensor& input,
                                                   at::MemoryFormat format, const Fill& fill,
                                                   const Finish& finish) {
  const auto options = input.options().dtype(accumulate_type(input));
  const at::Tensor first = at::empty({input.size(1)}, options);
  const at::Tensor second = at::empty({input.size(1)}, options);
  if (input.size(1) == 0) return {first, second};
  const Image image = image_of(input, format);
  const at::Tensor partials =
      at::empty({batch_norm_parts(image), input.size(1), kBatchNormPartial}, options);
  fill(image, partials.data_ptr());
  PSPNET_CHECK_LAUNCH();
  finish(image, partials.data_ptr(), first.data_ptr(), second.data_ptr());
  PSPNET_CHECK_LAUNCH();
  return {first, second};
}

std::tuple<at::Tensor, at::Tensor> statistics(const at::Tensor& input_) {
  check_image(input_, "input");
  const auto format = input_.suggest_memory_format();
  const at::Tensor input = input_.contiguous(format);
  const DeviceGuard guard(input.device());
  const Stream stream = current_stream();
  const DType dtype = dtype_of(input);
  return reduce_channels(
      input, format,
      [&](const Image& image, void* partials) {
        launch_batch_norm_statistics(dtype, image, input.const_data_ptr(), partials, stream);
      },
      [&](const Image& image, const void* partials, void* mean, void* sqdev) {
        launch_batch_norm_merge(dtype, image, partials, mean, sqdev, stream);
      });
}

BatchNorm pointers_of(const BatchNormInput& in, bool relu) {
  return {in.mean.const_data_ptr(), in.invstd.const_data_ptr(), in.weight.const_data_ptr(),
          in.bias.const_data_ptr(), relu};
}

at::Tensor normalize(const at::Tensor& input, const at::Tensor& mean, const at::Tensor& invstd,
                     const at::Tensor& weight, const at::Tensor& bias, bool relu,
                     const std::optional<at::Tensor>& residual) {
  const BatchNormInput in(input, mean, invstd, weight, bias);
  const BatchNorm norm = pointers_of(in, relu);
  const at::Tensor added = residual.has_value() ? in.added(*residual) : at::Tensor();
  const at::Tensor output = in.empty_like_input();
  if (output.numel() == 0) return output;
  const DeviceGuard guard(in.input.device());
  launch_batch_norm_normalize(dtype_of(in.input), image_of(in.input, in.format),
                              in.input.const_data_ptr(), norm,
                              added.defined() ? added.const_data_ptr() : nullptr,
                              output.data_ptr(), current_stream());
  PSPNET_CHECK_LAUNCH();
  return output;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> combine(
    const at::Tensor& means, const at::Tensor& sqdevs, const std::optional<at::Tensor>& counts,
    int64_t count, double eps, bool unbiased, bool unbiased_running, double momentum,
    at::Tensor& running_mean, at::Tensor& running_var) {
  const BatchNormParts parts(means, sqdevs, counts, count, eps, unbiased, unbiased_running,
                             momentum, running_mean, running_var);
  if (parts.rule.channels > 0) {
    const DeviceGuard guard(parts.means.device());
    launch_batch_norm_combine(
        dtype_of(parts.means), dtype_of(running_mean), parts.rule,
        {parts.means.const_data_ptr(), parts.sqdevs.const_data_ptr(),
         parts.counts.defined() ? parts.counts.const_data_ptr() : nullptr,
         running_mean.mutable_data_ptr(), running_var.mutable_data_ptr(), parts.mean.data_ptr(),
         parts.invstd.data_ptr(), parts.total.mutable_data_ptr<double>()},
        current_stream());
    PSPNET_CHECK_LAUNCH();
  }
  return {parts.mean, parts.invstd, parts.total};
}

// The sums of the backward pass; `residual` and its gradient where something was added.
std::tuple<at::Tensor, at::Tensor> reduce(const BatchNormGradient& in, bool relu,
                                          const at::Tensor& residual,
                                          const at::Tensor& grad_residual) {
  const BatchNorm norm = pointers_of(in, relu);
  const DeviceGuard guard(in.input.device());
  const Stream stream = current_stream();
  const DType dtype = dtype_of(in.input);
  return reduce_channels(
      in.input, in.format,
      [&](const Image& image, void* partials) {
        launch_batch_norm_backward_reduce(
            dtype, image, in.grad_output.const_data_ptr(), in.input.const_data_ptr(), norm,
            residual.defined() ? residual.const_data_ptr() : nullptr,
            grad_residual.defined() ? grad_residual.data_ptr() : nullptr, partials, stream);
      },
      [&](const Image& image, const void* partials, void* sum_dy, void* sum_dy_xhat) {
        launch_batch_norm_sum(dtype, image, partials, norm, sum_dy, sum_dy_xhat, stream);
      });
}

std::tuple<at::Tensor, at::Tensor> backward_reduce(
    const at::Tensor& grad_output, const at::Tensor& input, const at::Tensor& mean,
    const at::Tensor& invstd, const at::Tensor& weight, const at::Tensor& bias, bool relu) {
  return reduce({grad_output, input, mean, invstd, weight, bias}, relu, {}, {});
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward_residual(
    const at::Tensor& grad_output, const at::Tensor& input, const at::Tensor& residual,
    const at::Tensor& mean, const at::Tensor& invstd, const at::Tensor& weight,
    const at::Tensor& bias) {
  const BatchNormGradient in(grad_output, input, mean, invstd, weight, bias);
  const at::Tensor grad_residual = in.empty_like_input();
  auto [sum_dy, sum_dy_xhat] = reduce(in, true, in.added(residual), grad_residual);
  return {grad_residual, sum_dy, sum_dy_xhat};
}

at::Tensor backward_elementwise(const at::Tensor& grad_output, const at::Tensor& input,
                                const at::Tensor& mean, const at::Tensor& invstd,
                                const at::Tensor& weight, const at::Tensor& bias,
                                const at::Tensor& mean_dy_, const at::Tensor& mean_dy_xhat_,
                                bool relu) {
  const BatchNormGradient in(grad_output, input, mean, invstd, weight, bias);
  const BatchNorm norm = pointers_of(in, relu);
  const at::Tensor mean_dy = per_channel(mean_dy_, "mean_dy", in.input);
  const at::Tensor mean_dy_xhat = per_channel(mean_dy_xhat_, "mean_dy_xhat", in.input);
  const at::Tensor grad_input = in.empty_like_input();
  if (grad_input.numel() == 0) return grad_input;
  const DeviceGuard guard(in.input.device());
  launch_batch_norm_backward_elementwise(
      dtype_of(in.input), image_of(in.input, in.format), in.grad_output.const_data_ptr(),
      in.input.const_data_ptr(), norm, mean_dy.const_data_ptr(),
      mean_dy_xhat.const_data_ptr(), grad_input.data_ptr(), current_stream());
  PSPNET_CHECK_LAUNCH();
  return grad_input;
}

}  // namespace

PSPNET_LIBRARY_IMPL(m) {
  m.impl("batch_norm_statistics", &statistics);
  m.impl("batch_norm_normalize", &normalize);
  m.impl("batch_norm_combine", &combine);
  m.impl("batch_norm_backward_reduce", &backward_reduce);
  m.impl("batch_norm_backward_residual", &backward_residual);
  m.impl("batch_norm_backward_elementwise", &backward_elementwise);
}

}  // namespace pspnet::cuda
