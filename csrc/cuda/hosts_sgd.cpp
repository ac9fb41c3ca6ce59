// From tensors to launchers: the solver's step.
#include <torch/library.h>

#include <algorithm>

#include "../sgd_inputs.h"
#include "device.h"
#include "tensors.h"

namespace pspnet::cuda {
namespace {

void caffe_sgd(at::TensorList params, at::TensorList grads_, at::TensorList buffers,
               double grad_scale, double decay, double momentum, double rate) {
  if (params.empty()) return;
  const DeviceGuard guard(params[0].device());
  const std::vector<at::Tensor> grads = check_sgd(params, grads_, buffers);
  for (size_t first = 0; first < params.size(); first += kSgdTensors) {
    SgdTensors tensors{};
    for (size_t k = first; k < std::min(first + kSgdTensors, params.size()); ++k) {
      tensors.params[tensors.count] = params[k].data_ptr();
      tensors.grads[tensors.count] = grads[k].const_data_ptr();
      tensors.buffers[tensors.count] = buffers[k].data_ptr();
      tensors.elements[tensors.count++] = params[k].numel();
    }
    launch_sgd(dtype_of(params[0]), tensors, {grad_scale, decay, momentum, rate},
               current_stream());
    PSPNET_CHECK_LAUNCH();
  }
}

}  // namespace

PSPNET_LIBRARY_IMPL(m) { m.impl("caffe_sgd", &caffe_sgd); }

}  // namespace pspnet::cuda
