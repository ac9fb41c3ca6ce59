// Runs CUDA kernels on the CPU: what csrc/cuda/launch.h includes where nvcc is not the compiler.
// Blocks run one after the other, each thread of a block as a fibre with a stack of its own. A
// fibre runs until it waits: for its block at __syncthreads, for its warp at a shuffle. Waiting together
// in different places, or when others have left, is an error, as is shared memory beyond what the
// launch asked for (the address sanitizer sees it).
#pragma once

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__

struct dim3 {
  unsigned int x, y, z;
  constexpr dim3(unsigned int x_ = 1, unsigned int y_ = 1, unsigned int z_ = 1)
      : x(x_), y(y_), z(z_) {}
};

struct alignas(16) uint4 {
  unsigned int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned int x, y;
};
template <typename T>
void __stwb(T* target, T value) {
  *target = value;
}

// Of the fibre that runs.
extern thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace cuda_on_cpu {

// In which order blocks, and the threads of a block between two waits, run.
enum class Order { kAscending, kDescending, kRandom };
void set_order(Order order, uint64_t seed);

// Where a kernel's blocks have to take several parts, and where 32-bit indices end. Descending order
// has no 32-bit indices at all, so both kinds must give equal bits.
constexpr int64_t kMaxGridX = 61;
constexpr int64_t kMaxGridYZ = 7;
int64_t max_index();

// Throws std::runtime_error for what a card would not do.
void run(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& kernel);

void* shared_memory_of_block();
void wait_for_block(const void* place);

// Gives each lane of `mask` the `bytes` that its lane `source` brought; all of them must come here.
void exchange(unsigned int mask, const void* value, void* result, size_t bytes, int source,
              const void* place);

template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
            Arguments... arguments) {
  run(grid, block, shared_bytes, [&] { kernel(arguments...); });
}

constexpr int kWarpSize = 32;
inline int lane() {
  return static_cast<int>(
      (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % kWarpSize);
}

}  // namespace cuda_on_cpu

#define PSPNET_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ((void)(stream), cuda_on_cpu::launch(kernel, grid, block, shared_bytes, __VA_ARGS__))

// The place of a wait is where its call returns to: never inlined.
__attribute__((noinline)) inline void __syncthreads() {
  cuda_on_cpu::wait_for_block(__builtin_return_address(0));
}

template <typename T>
__attribute__((noinline)) T __shfl_sync(unsigned int mask, T value, int source) {
  T result;
  cuda_on_cpu::exchange(mask, &value, &result, sizeof(T), source % cuda_on_cpu::kWarpSize,
                        __builtin_return_address(0));
  return result;
}

// A lane whose source lies outside the warp keeps its own value.
template <typename T>
__attribute__((noinline)) T __shfl_down_sync(unsigned int mask, T value, unsigned int distance) {
  const int source = cuda_on_cpu::lane() + static_cast<int>(distance);
  T result;
  cuda_on_cpu::exchange(mask, &value, &result, sizeof(T),
                        source < cuda_on_cpu::kWarpSize ? source : cuda_on_cpu::lane(),
                        __builtin_return_address(0));
  return result;
}

template <typename T>
__attribute__((noinline)) T __shfl_xor_sync(unsigned int mask, T value, int lanes) {
  T result;
  cuda_on_cpu::exchange(mask, &value, &result, sizeof(T), cuda_on_cpu::lane() ^ lanes,
                        __builtin_return_address(0));
  return result;
}

__attribute__((noinline)) inline unsigned int __ballot_sync(unsigned int mask, int predicate) {
  unsigned int votes = 0;
  for (int source = 0; source < cuda_on_cpu::kWarpSize; ++source) {
    if ((mask >> source & 1u) == 0) continue;
    int vote = 0;
    cuda_on_cpu::exchange(mask, &predicate, &vote, sizeof(int), source,
                          __builtin_return_address(0));
    votes |= (vote != 0 ? 1u : 0u) << source;
  }
  return votes;
}

__attribute__((noinline)) inline void __syncwarp(unsigned int mask = 0xffffffffu) {
  int nothing = 0;
  cuda_on_cpu::exchange(mask, &nothing, &nothing, sizeof(int), cuda_on_cpu::lane(),
                        __builtin_return_address(0));
}

namespace pspnet::cuda {

using half_t = c10::Half;
using bfloat16_t = c10::BFloat16;

inline float widen(half_t value) { return value; }
inline float widen(bfloat16_t value) { return value; }
inline void narrow(float value, half_t* target) { *target = value; }
inline void narrow(float value, bfloat16_t* target) { *target = value; }

template <typename T>
T* shared_memory() {
  return static_cast<T*>(cuda_on_cpu::shared_memory_of_block());
}

}  // namespace pspnet::cuda
