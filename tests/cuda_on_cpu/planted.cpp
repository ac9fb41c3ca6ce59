// Kernels with a mistake each, by which the tests of the emulator see that it finds them.
#include <stdexcept>
#include <string>

#include "launch.h"

namespace pspnet::cuda {
namespace {

constexpr int kCount = 64;

__device__ inline void reverse(const float* input, float* output, bool barrier) {
  float* shared = shared_memory<float>();
  shared[threadIdx.x] = input[threadIdx.x];
  if (barrier) __syncthreads();
  output[threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
}
__global__ void right_kernel(const float* input, float* output) { reverse(input, output, true); }
__global__ void missing_barrier_kernel(const float* input, float* output) {
  reverse(input, output, false);
}
__global__ void input_overrun_kernel(const float* input, float* output) {
  output[threadIdx.x] = input[threadIdx.x + 1];
}
__global__ void shared_overrun_kernel(const float* input, float* output) {
  float* shared = shared_memory<float>();
  shared[threadIdx.x + 1] = input[threadIdx.x];
  __syncthreads();
  output[threadIdx.x] = shared[threadIdx.x + 1];
}
__global__ void unwritten_kernel(const float* input, float* output) {
  if (threadIdx.x != 5) output[threadIdx.x] = input[threadIdx.x];
}
__global__ void leaves_early_kernel(const float* input, float* output) {
  if (threadIdx.x == 3) return;
  __syncthreads();
  output[threadIdx.x] = input[threadIdx.x];
}
__global__ void diverges_kernel(const float* input, float* output) {
  if (threadIdx.x < 32) {
    __syncthreads();
    output[threadIdx.x] = input[threadIdx.x];
  } else {
    __syncthreads();
    output[threadIdx.x] = -input[threadIdx.x];
  }
}
__global__ void shuffle_without_lane_kernel(const float* input, float* output) {
  if (threadIdx.x % kWarp != 7) {
    output[threadIdx.x] = __shfl_down_sync(0xffffffffu, input[threadIdx.x], 1);
  }
}
__global__ void order_kernel(const float*, float* output) {
  // Every thread writes the same place: the last one wins.
  output[0] = static_cast<float>(threadIdx.x);
  if (threadIdx.x > 0) output[threadIdx.x] = 0;
}
__global__ void warp_sum_kernel(const float* input, float* output) {
  const float sum = warp_reduce(
      input[threadIdx.x],
      [](float value, int distance) { return __shfl_down_sync(0xffffffffu, value, distance); },
      [](float a, float b) { return a + b; });
  const float first = __shfl_sync(0xffffffffu, sum, 0);
  const float votes = static_cast<float>(__ballot_sync(0xffffffffu, input[threadIdx.x] > 2) & 0xff);
  output[threadIdx.x] = first + 1000 * votes + __shfl_xor_sync(0xffffffffu, 0.25f, 1);
}

}  // namespace
}  // namespace pspnet::cuda

// What went wrong, or "".
extern "C" const char* cuda_on_cpu_planted(const char* name, const float* input, float* output) {
  using namespace pspnet::cuda;
  static std::string error;
  error.clear();
  const std::string wanted = name;
  const auto run = [&](const char* kernel_name, void (*kernel)(const float*, float*)) {
    if (wanted == kernel_name) {
      PSPNET_LAUNCH(kernel, 1, kCount, kCount * sizeof(float), nullptr, input, output);
    }
  };
  try {
    run("right", &right_kernel);
    run("missing_barrier", &missing_barrier_kernel);
    run("input_overrun", &input_overrun_kernel);
    run("shared_overrun", &shared_overrun_kernel);
    run("unwritten", &unwritten_kernel);
    run("leaves_early", &leaves_early_kernel);
    run("diverges", &diverges_kernel);
    run("shuffle_without_lane", &shuffle_without_lane_kernel);
    run("order", &order_kernel);
    run("warp_sum", &warp_sum_kernel);
  } catch (const std::runtime_error& failure) {
    error = failure.what();
  }
  return error.c_str();
}
