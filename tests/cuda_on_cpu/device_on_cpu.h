// The hosts of csrc/cuda/hosts.cpp, registered for CPU tensors in a library of their own.
#pragma once

#include <ATen/core/Tensor.h>

#define PSPNET_LIBRARY_IMPL(m) TORCH_LIBRARY_IMPL(pspnet_cuda_on_cpu, CPU, m)
#define PSPNET_CHECK_LAUNCH() ((void)0)

namespace pspnet::cuda {

struct DeviceGuard {
  explicit DeviceGuard(c10::Device) {}
};

inline Stream current_stream() { return nullptr; }

}  // namespace pspnet::cuda
