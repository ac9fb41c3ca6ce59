// What the solver's step of every device takes: checked, and gradients laid out as their weights.
#pragma once

#include <ATen/Functions.h>

#include <vector>

#include "checks.h"
#include "sgd_rules.h"

namespace pspnet {

// Whether the same place in memory is the same element.
inline bool laid_out_alike(const at::Tensor& a, const at::Tensor& b) {
  for (int64_t d = 0; d < a.dim(); ++d) {
    if (a.size(d) > 1 && a.stride(d) != b.stride(d)) return false;
  }
  return true;
}

// The gradients, copied where they are laid out otherwise.
inline std::vector<at::Tensor> check_sgd(at::TensorList params, at::TensorList grads,
                                         at::TensorList buffers) {
  TORCH_CHECK(grads.size() == params.size() && buffers.size() == params.size(),
              "grads and buffers must be as many as the ", params.size(), " params, got ",
              grads.size(), " and ", buffers.size());
  std::vector<at::Tensor> like_params;
  for (size_t k = 0; k < params.size(); ++k) {
    const at::Tensor& param = params[k];
    TORCH_CHECK(param.scalar_type() == at::kFloat || param.scalar_type() == at::kDouble,
                "params must be float32 or float64, got ", param.scalar_type());
    TORCH_CHECK(param.scalar_type() == params[0].scalar_type() &&
                    param.device() == params[0].device(),
                "params must be of one dtype on one device, got ", param.scalar_type(), " on ",
                param.device());
    TORCH_CHECK(param.is_non_overlapping_and_dense(), "params must be dense, got strides ",
                param.strides());
    for (const auto& [tensor, name] : {std::pair(&grads[k], "grads"),
                                       std::pair(&buffers[k], "buffers")}) {
      check_same(*tensor, name, param.sizes(), param);
      check_same_dtype(*tensor, name, param);
    }
    TORCH_CHECK(laid_out_alike(buffers[k], param), "buffers must have their params' strides ",
                param.strides(), ", got ", buffers[k].strides());
    like_params.push_back(laid_out_alike(grads[k], param) ? grads[k]
                                                          : at::empty_like(param).copy_(grads[k]));
  }
  return like_params;
}

}  // namespace pspnet
