// The step of the original's solver, in one pass over the weights.
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include "../sgd_inputs.h"

namespace pspnet::cpu {
namespace {

void caffe_sgd(at::TensorList params, at::TensorList grads_, at::TensorList buffers,
               double grad_scale, double decay, double momentum, double rate) {
  const std::vector<at::Tensor> grads = check_sgd(params, grads_, buffers);
  const SgdRule rule{grad_scale, decay, momentum, rate};
  for (size_t k = 0; k < params.size(); ++k) {
    AT_DISPATCH_FLOATING_TYPES(params[k].scalar_type(), "caffe_sgd", [&] {
      const SgdStep<scalar_t> step(rule);
      const scalar_t* grad = grads[k].const_data_ptr<scalar_t>();
      scalar_t* weight = params[k].mutable_data_ptr<scalar_t>();
      scalar_t* buffer = buffers[k].mutable_data_ptr<scalar_t>();
      const int64_t fused = step.fused(params[k].numel());
      at::parallel_for(0, params[k].numel(), 1 << 14, [&](int64_t begin, int64_t end) {
        int64_t i = begin;
        for (; i < end && i < fused; ++i) step(true, grad[i], weight + i, buffer + i);
        for (; i < end; ++i) step(false, grad[i], weight + i, buffer + i);
      });
    });
  }
}

}  // namespace

TORCH_LIBRARY_IMPL(pspnet, CPU, m) { m.impl("caffe_sgd", &caffe_sgd); }

}  // namespace pspnet::cpu
