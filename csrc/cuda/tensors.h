// What launchers are told of a tensor.
#pragma once

#include <ATen/core/Tensor.h>

#include "launchers.h"

namespace pspnet::cuda {

inline DType dtype_of(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kDouble: return DType::kDouble;
    case at::kHalf: return DType::kHalf;
    case at::kBFloat16: return DType::kBFloat16;
    default: return DType::kFloat;  // check_image let floating types alone through
  }
}

inline Image image_of(const at::Tensor& tensor, at::MemoryFormat format) {
  return {tensor.size(0), tensor.size(1), tensor.size(2), tensor.size(3),
          format == at::MemoryFormat::ChannelsLast};
}

// Covers in working memory of int64.
inline Cover* covers_in(const at::Tensor& space) {
  static_assert(sizeof(Cover) == sizeof(int64_t));
  return static_cast<Cover*>(space.data_ptr());
}

}  // namespace pspnet::cuda
