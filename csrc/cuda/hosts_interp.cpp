// From tensors to launchers: interpolation.
#include <ATen/Functions.h>
#include <torch/library.h>

#include "../checks.h"
#include "device.h"
#include "tensors.h"

namespace pspnet::cuda {
namespace {

Resize resize_of(at::IntArrayRef sizes, at::IntArrayRef out_size, int64_t pad_begin,
                 int64_t pad_end, at::MemoryFormat format) {
  return {sizes[2] + pad_begin + pad_end, sizes[3] + pad_begin + pad_end,
          out_size[0], out_size[1],
          -pad_begin * sizes[3] - pad_begin, sizes[3], sizes[2] * sizes[3],
          sizes[0], sizes[1], format == at::MemoryFormat::ChannelsLast};
}

// The part of an uncropped image that interpolation reads.
at::Tensor cropped(const at::Tensor& image, const Resize& resize, int64_t pad_begin) {
  return image.narrow(2, -pad_begin, resize.in_h).narrow(3, -pad_begin, resize.in_w);
}

at::Tensor interp2d(const at::Tensor& input_, at::IntArrayRef out_size, int64_t pad_begin,
                    int64_t pad_end) {
  check_image(input_, "input");
  check_interp(input_.sizes().slice(2), out_size, pad_begin, pad_end);
  const auto format = input_.suggest_memory_format();
  const at::Tensor input = input_.contiguous(format);
  const at::Tensor output = at::empty(
      {input.size(0), input.size(1), out_size[0], out_size[1]}, input.options(), format);
  if (output.numel() == 0) return output;
  const Resize resize = resize_of(input.sizes(), out_size, pad_begin, pad_end, format);
  if (resize.copies()) {
    output.copy_(cropped(input, resize, pad_begin));
    return output;
  }
  const DeviceGuard guard(input.device());
  launch_interp_forward(dtype_of(input), resize, input.const_data_ptr(), output.data_ptr(),
                        current_stream());
  PSPNET_CHECK_LAUNCH();
  return output;
}

at::Tensor interp2d_backward(const at::Tensor& grad_output_, at::IntArrayRef in_size,
                             int64_t pad_begin, int64_t pad_end) {
  check_image(grad_output_, "grad_output");
  check_pair(in_size, "in_size", 1);
  const auto out_size = grad_output_.sizes().slice(2);
  check_interp(in_size, out_size, pad_begin, pad_end);
  const auto format = grad_output_.suggest_memory_format();
  const at::Tensor grad_output = grad_output_.contiguous(format);
  const at::Tensor grad_input = at::empty(
      {grad_output.size(0), grad_output.size(1), in_size[0], in_size[1]}, grad_output.options(),
      format);
  if (grad_input.numel() == 0) return grad_input;
  if (pad_begin != 0 || pad_end != 0) grad_input.zero_();
  const Resize resize = resize_of(grad_input.sizes(), out_size, pad_begin, pad_end, format);
  if (resize.copies()) {
    cropped(grad_input, resize, pad_begin).copy_(grad_output);
    return grad_input;
  }
  const DeviceGuard guard(grad_output.device());
  const Stream stream = current_stream();
  const at::Tensor covers = at::empty({resize.in_h + resize.in_w},
                                      grad_output.options().dtype(at::kLong));
  launch_interp_covers(resize, covers_in(covers), stream);
  PSPNET_CHECK_LAUNCH();
  launch_interp_backward(dtype_of(grad_output), resize, covers_in(covers),
                         grad_output.const_data_ptr(), grad_input.data_ptr(), stream);
  PSPNET_CHECK_LAUNCH();
  return grad_input;
}

}  // namespace

PSPNET_LIBRARY_IMPL(m) {
  m.impl("interp2d", &interp2d);
  m.impl("interp2d_backward", &interp2d_backward);
}

}  // namespace pspnet::cuda
