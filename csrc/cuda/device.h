// What hosts.cpp needs of a device: guard, current stream, launch check, and where it registers.
#pragma once

#include "launchers.h"

#if defined(PSPNET_CUDA_ON_CPU)
#include "device_on_cpu.h"
#else
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#define PSPNET_LIBRARY_IMPL(m) TORCH_LIBRARY_IMPL(pspnet, CUDA, m)
#define PSPNET_CHECK_LAUNCH() C10_CUDA_KERNEL_LAUNCH_CHECK()

namespace pspnet::cuda {

using DeviceGuard = c10::cuda::CUDAGuard;

inline Stream current_stream() { return c10::cuda::getCurrentCUDAStream().stream(); }

}  // namespace pspnet::cuda
#endif
