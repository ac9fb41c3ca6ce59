// From tensors to launchers: the local steps of batch normalization.
#include <ATen/Functions.h>
#include <torch/library.h>

#include <tuple>

#include "../checks.h"
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

// The per-channel tensors, checked and kept alive, and their addresses.
struct Norm {
  Norm(const at::Tensor& mean_, const at::Tensor& invstd_, const at::Tensor& weight_,
       const at::Tensor& bias_, bool relu, const at::Tensor& input)
      : mean(per_channel(mean_, "mean", input)), invstd(per_channel(invstd_, "invstd", input)),
        weight(per_channel(weight_, "weight", input)), bias(per_channel(bias_, "bias", input)),
        pointers{mean.const_data_ptr(), invstd.const_data_ptr(), weight.const_data_ptr(),
                 bias.const_data_ptr(), relu} {}
  at::Tensor mean, invstd, weight, bias;
  BatchNorm pointers;
};

at::Tensor normalize(const at::Tensor& input_, const at::Tensor& mean, const at::Tensor& invstd,
                     const at::Tensor& weight, const at::Tensor& bias, bool relu) {
  check_image(input_, "input");
  const auto format = input_.suggest_memory_format();
  const at::Tensor input = input_.contiguous(format);
  const Norm norm(mean, invstd, weight, bias, relu, input);
  const at::Tensor output = at::empty_like(input, input.options(), format);
  if (output.numel() == 0) return output;
  const DeviceGuard guard(input.device());
  launch_batch_norm_normalize(dtype_of(input), image_of(input, format), input.const_data_ptr(),
                              norm.pointers, output.data_ptr(), current_stream());
  PSPNET_CHECK_LAUNCH();
  return output;
}

std::tuple<at::Tensor, at::Tensor> backward_reduce(
    const at::Tensor& grad_output_, const at::Tensor& input_, const at::Tensor& mean,
    const at::Tensor& invstd, const at::Tensor& weight, const at::Tensor& bias, bool relu) {
  check_batch_norm_gradient(grad_output_, input_);
  const auto format = input_.suggest_memory_format();
  const at::Tensor input = input_.contiguous(format);
  const at::Tensor grad_output = grad_output_.contiguous(format);
  const Norm norm(mean, invstd, weight, bias, relu, input);
  const DeviceGuard guard(input.device());
  const Stream stream = current_stream();
  const DType dtype = dtype_of(input);
  return reduce_channels(
      input, format,
      [&](const Image& image, void* partials) {
        launch_batch_norm_backward_reduce(dtype, image, grad_output.const_data_ptr(),
                                          input.const_data_ptr(), norm.pointers, partials, stream);
      },
      [&](const Image& image, const void* partials, void* sum_dy, void* sum_dy_xhat) {
        launch_batch_norm_sum(dtype, image, partials, norm.pointers, sum_dy, sum_dy_xhat, stream);
      });
}

at::Tensor backward_elementwise(const at::Tensor& grad_output_, const at::Tensor& input_,
                                const at::Tensor& mean, const at::Tensor& invstd,
                                const at::Tensor& weight, const at::Tensor& bias,
                                const at::Tensor& mean_dy_, const at::Tensor& mean_dy_xhat_,
                                bool relu) {
  check_batch_norm_gradient(grad_output_, input_);
  const auto format = input_.suggest_memory_format();
  const at::Tensor input = input_.contiguous(format);
  const at::Tensor grad_output = grad_output_.contiguous(format);
  const Norm norm(mean, invstd, weight, bias, relu, input);
  const at::Tensor mean_dy = per_channel(mean_dy_, "mean_dy", input);
  const at::Tensor mean_dy_xhat = per_channel(mean_dy_xhat_, "mean_dy_xhat", input);
  const at::Tensor grad_input = at::empty_like(input, input.options(), format);
  if (grad_input.numel() == 0) return grad_input;
  const DeviceGuard guard(input.device());
  launch_batch_norm_backward_elementwise(
      dtype_of(input), image_of(input, format), grad_output.const_data_ptr(),
      input.const_data_ptr(), norm.pointers, mean_dy.const_data_ptr(),
      mean_dy_xhat.const_data_ptr(), grad_input.data_ptr(), current_stream());
  PSPNET_CHECK_LAUNCH();
  return grad_input;
}

}  // namespace

PSPNET_LIBRARY_IMPL(m) {
  m.impl("batch_norm_statistics", &statistics);
  m.impl("batch_norm_normalize", &normalize);
  m.impl("batch_norm_backward_reduce", &backward_reduce);
  m.impl("batch_norm_backward_elementwise", &backward_elementwise);
}

}  // namespace pspnet::cuda
