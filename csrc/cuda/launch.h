// What kernels are made of: the launch macro, grid arithmetic, reductions. Under
// nvcc a launch is <<<>>>; in tests/cuda_on_cpu the same source runs on the CPU.
#pragma once

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#define PSPNET_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  kernel<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__)
namespace pspnet::cuda {
using half_t = __half;
using bfloat16_t = __nv_bfloat16;

// Torch's build forbids these types' own conversions.
__device__ inline float widen(half_t value) { return __half2float(value); }
__device__ inline float widen(bfloat16_t value) { return __bfloat162float(value); }
__device__ inline void narrow(float value, half_t* target) { *target = __float2half_rn(value); }
__device__ inline void narrow(float value, bfloat16_t* target) {
  *target = __float2bfloat16_rn(value);
}

// The block's dynamic shared memory, the only kind used.
template <typename T>
__device__ T* shared_memory() {
  extern __shared__ __align__(16) unsigned char memory[];
  return reinterpret_cast<T*>(memory);
}
}  // namespace pspnet::cuda
#else
#include "cuda_on_cpu.h"
#endif

#include "launchers.h"

namespace pspnet::cuda {

constexpr int kWarp = 32;
constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = int64_t{1} << 30;
constexpr int64_t kSharedBytes = 48 << 10;  // what every card gives without asking
#if defined(__CUDACC__)
constexpr int64_t kMaxGridX = INT32_MAX;
constexpr int64_t kMaxGridYZ = 65535;
inline int64_t max_index() { return INT32_MAX; }
#else
// Small in the tests, so that their shapes reach beyond.
using cuda_on_cpu::kMaxGridX, cuda_on_cpu::kMaxGridYZ, cuda_on_cpu::max_index;
#endif

template <typename T>
struct Accumulate {
  using type = float;
};
template <>
struct Accumulate<double> {
  using type = double;
};
template <typename T>
using acc_type = typename Accumulate<T>::type;

// Between values as stored and as summed.
__device__ inline float widen(float value) { return value; }
__device__ inline double widen(double value) { return value; }
__device__ inline int64_t widen(int64_t value) { return value; }
__device__ inline void narrow(float value, float* target) { *target = value; }
__device__ inline void narrow(double value, double* target) { *target = value; }
__device__ inline void narrow(int32_t value, int32_t* target) { *target = value; }
__device__ inline void narrow(int64_t value, int64_t* target) { *target = value; }

// body(T{}) for the type that `dtype` names.
template <typename Body>
void dispatch(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::kFloat: return body(float{});
    case DType::kDouble: return body(double{});
    case DType::kHalf: return body(half_t{});
    case DType::kBFloat16: return body(bfloat16_t{});
  }
}

// body(float or double), for what has no half type.
template <typename Body>
void dispatch_wide(DType dtype, const Body& body) {
  dtype == DType::kDouble ? body(double{}) : body(float{});
}

template <int kCount>
struct Count {
  static constexpr int value = kCount;
};

inline unsigned int blocks_for(int64_t items, int64_t threads = kThreads) {
  const int64_t blocks = ceil_div(items, threads);
  return static_cast<unsigned int>(blocks < kMaxBlocks ? blocks : kMaxBlocks);
}

inline unsigned int grid_x(int64_t blocks) {
  return static_cast<unsigned int>(blocks < kMaxGridX ? blocks : kMaxGridX);
}
inline unsigned int grid_yz(int64_t blocks) {
  return static_cast<unsigned int>(blocks < kMaxGridYZ ? blocks : kMaxGridYZ);
}

__device__ inline int64_t global_thread() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ inline int64_t all_threads() {
  return static_cast<int64_t>(gridDim.x) * blockDim.x;
}

// index = quotient * size + remainder; 32-bit division, several times faster, where it will do.
struct Split {
  int64_t quotient;
  int64_t remainder;
};
__device__ inline Split split(int64_t index, int64_t size) {
  if (((index | size) >> 32) == 0) {
    const uint32_t quotient = static_cast<uint32_t>(index) / static_cast<uint32_t>(size);
    return {quotient, index - static_cast<int64_t>(quotient) * size};
  }
  const int64_t quotient = index / size;
  return {quotient, index - quotient * size};
}

// The value of T nearest to `value`, as the sum's type.
template <typename T>
__device__ inline acc_type<T> rounded(acc_type<T> value) {
  T stored;
  narrow(value, &stored);
  return widen(stored);
}

// merge(a, b) over the lanes of a warp, lower lanes first; the result is lane 0's. `shift` is
// exchange(value, distance): the value of the lane that far above.
template <typename T, typename Shift, typename Merge>
__device__ inline T warp_reduce(T value, const Shift& shift, const Merge& merge) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    value = merge(value, shift(value, distance));
  }
  return value;
}

// The same over a whole block of full warps, in `scratch` of one T a warp; thread 0's result.
template <typename T, typename Shift, typename Merge>
__device__ inline T block_reduce(T value, T* scratch, const Shift& shift, const Merge& merge) {
  value = warp_reduce(value, shift, merge);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  if (lane == 0) scratch[warp] = value;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int k = 1; k < static_cast<int>(blockDim.x) / kWarp; ++k) {
      value = merge(value, scratch[k]);
    }
  }
  return value;
}

// First of the outputs [0, count) for which test(i) holds, of a test that once true stays true.
template <typename Test>
__device__ inline int64_t first_that(int64_t count, const Test& test) {
  int64_t low = 0, high = count;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (test(middle)) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

}  // namespace pspnet::cuda
