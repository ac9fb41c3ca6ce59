// From tensors to launchers: interpolation.
#include <ATen/Functions.h>
#include <torch/library.h>

#include "../interp_rules.h"
#include "device.h"
#include "tensors.h"

namespace pspnet::cuda {
namespace {

Resize resize_of(const at::Tensor& in, const InterpCrop& crop, at::MemoryFormat format,
                 const at::Tensor& out) {
  return {crop.left(in.size(2)), crop.left(in.size(3)), out.size(2), out.size(3),
          -crop.begin * in.size(3) - crop.begin, in.size(3), in.size(2) * in.size(3),
          in.size(0), in.size(1), format == at::MemoryFormat::ChannelsLast};
}

struct Cuda {
  static void interp_forward(const at::Tensor& input, const InterpCrop& crop,
                             at::MemoryFormat format, const at::Tensor& output) {
    const DeviceGuard guard(input.device());
    launch_interp_forward(dtype_of(input), resize_of(input, crop, format, output),
                          input.const_data_ptr(), output.data_ptr(), current_stream());
    PSPNET_CHECK_LAUNCH();
  }

  static void interp_backward(const at::Tensor& grad_output, const InterpCrop& crop,
                              at::MemoryFormat format, const at::Tensor& grad_input) {
    const DeviceGuard guard(grad_output.device());
    const Resize resize = resize_of(grad_input, crop, format, grad_output);
    const Stream stream = current_stream();
    const at::Tensor covers = at::empty({resize.in_h + resize.in_w},
                                        grad_output.options().dtype(at::kLong));
    launch_interp_covers(resize, covers_in(covers), stream);
    PSPNET_CHECK_LAUNCH();
    launch_interp_backward(dtype_of(grad_output), resize, covers_in(covers),
                           grad_output.const_data_ptr(), grad_input.data_ptr(), stream);
    PSPNET_CHECK_LAUNCH();
  }
};

}  // namespace

PSPNET_LIBRARY_IMPL(m) { register_interp<Cuda>(m); }

}  // namespace pspnet::cuda
