// What interpolation on every device has in common: its checks, its outputs, and the copy that is
// all there is to do where no size changes.
#pragma once

#include <ATen/Functions.h>
#include <torch/library.h>

#include "checks.h"

namespace pspnet {

// Pixels that are cut off before and behind the rows and columns, as negative numbers.
struct InterpCrop {
  int64_t begin, end;
  bool is_empty() const { return begin == 0 && end == 0; }
  // Rows, or columns, that are left of `size`.
  int64_t left(int64_t size) const { return size + begin + end; }
  // The part of an image that interpolation reads.
  at::Tensor part(const at::Tensor& image) const {
    return image.narrow(2, -begin, left(image.size(2))).narrow(3, -begin, left(image.size(3)));
  }
};

// Device::interp_forward(input, crop, format, output) fills the output; interp_backward(grad_output,
// crop, format, grad_input) the gradient, which is 0 where something was cut off. Both tensors are
// dense in that memory format.
template <typename Device>
void register_interp(torch::Library& m) {
  using at::IntArrayRef, at::Tensor;
  m.impl("interp2d", [](const Tensor& input_, IntArrayRef out_size, int64_t pad_begin,
                        int64_t pad_end) {
    check_image(input_, "input");
    check_interp(input_.sizes().slice(2), out_size, pad_begin, pad_end);
    const auto format = input_.suggest_memory_format();
    const Tensor input = input_.contiguous(format);
    const Tensor output = at::empty({input.size(0), input.size(1), out_size[0], out_size[1]},
                                    input.options(), format);
    const InterpCrop crop{pad_begin, pad_end};
    if (output.numel() == 0) return output;
    if (crop.part(input).sizes() == output.sizes()) {
      output.copy_(crop.part(input));
    } else {
      Device::interp_forward(input, crop, format, output);
    }
    return output;
  });
  m.impl("interp2d_backward", [](const Tensor& grad_output_, IntArrayRef in_size,
                                 int64_t pad_begin, int64_t pad_end) {
    check_image(grad_output_, "grad_output");
    check_pair(in_size, "in_size", 1);
    check_interp(in_size, grad_output_.sizes().slice(2), pad_begin, pad_end);
    const auto format = grad_output_.suggest_memory_format();
    const Tensor grad_output = grad_output_.contiguous(format);
    const Tensor grad_input = at::empty(
        {grad_output.size(0), grad_output.size(1), in_size[0], in_size[1]}, grad_output.options(),
        format);
    const InterpCrop crop{pad_begin, pad_end};
    if (grad_input.numel() == 0) return grad_input;
    if (!crop.is_empty()) grad_input.zero_();
    if (crop.part(grad_input).sizes() == grad_output.sizes()) {
      crop.part(grad_input).copy_(grad_output);
    } else {
      Device::interp_backward(grad_output, crop, format, grad_input);
    }
    return grad_input;
  });
}

}  // namespace pspnet
