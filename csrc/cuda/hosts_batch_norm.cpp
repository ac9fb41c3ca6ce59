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
                     const at::Tensor& weight, const at::Tensor& bias, bool relu) {
  const BatchNormInput in(input, mean, invstd, weight, bias);
  const BatchNorm norm = pointers_of(in, relu);
  const at::Tensor output = in.empty_like_input();
  if (output.numel() == 0) return output;
  const DeviceGuard guard(in.input.device());
  launch_batch_norm_normalize(dtype_of(in.input), image_of(in.input, in.format),
                              in.input.const_data_ptr(), norm, output.data_ptr(),
                              current_stream());
  PSPNET_CHECK_LAUNCH();
  return output;
}

std::tuple<at::Tensor, at::Tensor> backward_reduce(
    const at::Tensor& grad_output, const at::Tensor& input, const at::Tensor& mean,
    const at::Tensor& invstd, const at::Tensor& weight, const at::Tensor& bias, bool relu) {
  const BatchNormGradient in(grad_output, input, mean, invstd, weight, bias);
  const BatchNorm norm = pointers_of(in, relu);
  const DeviceGuard guard(in.input.device());
  const Stream stream = current_stream();
  const DType dtype = dtype_of(in.input);
  return reduce_channels(
      in.input, in.format,
      [&](const Image& image, void* partials) {
        launch_batch_norm_backward_reduce(dtype, image, in.grad_output.const_data_ptr(),
                                          in.input.const_data_ptr(), norm, partials, stream);
      },
      [&](const Image& image, const void* partials, void* sum_dy, void* sum_dy_xhat) {
        launch_batch_norm_sum(dtype, image, partials, norm, sum_dy, sum_dy_xhat, stream);
      });
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
  m.impl("batch_norm_backward_reduce", &backward_reduce);
  m.impl("batch_norm_backward_elementwise", &backward_elementwise);
}

}  // namespace pspnet::cuda
