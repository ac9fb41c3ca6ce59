// The first step of `scores`, for the hosts of every device.
#pragma once

#include <ATen/Functions.h>

#include <optional>

namespace pspnet {

// Float32 logits of windows plus those of their mirror images, turned back. Interpolation is linear
// and treats left and right alike: what is added here need be upsampled only once.
inline at::Tensor summed_logits(const at::Tensor& logits,
                                const std::optional<at::Tensor>& mirrored) {
  at::Tensor sum = logits.to(at::kFloat);
  if (mirrored.has_value()) {
    sum = at::add(sum, mirrored->to(at::kFloat).flip({3}));
  }
  return sum.contiguous();
}

}  // namespace pspnet
