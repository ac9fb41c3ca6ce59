// What blocks of batch normalization sum up, and how they merge it.
#pragma once

#include "batch_norm_walk.h"

namespace pspnet::cuda {

// Number, mean and sum of squared deviations of some values (Chan et al. 1979).
template <typename acc_t>
struct Moments {
  acc_t count, mean, sqdev;

  __device__ static Moments zero() { return {0, 0, 0}; }
  __device__ static Moments merge(const Moments& a, const Moments& b) {
    const acc_t count = a.count + b.count;
    if (count == acc_t(0)) return a;
    const acc_t delta = b.mean - a.mean, share = b.count / count;
    return {count, a.mean + delta * share,
            a.sqdev + b.sqdev + delta * delta * (a.count * share)};
  }
  __device__ static Moments shift(const Moments& a, int distance) {
    return {__shfl_down_sync(0xffffffffu, a.count, distance),
            __shfl_down_sync(0xffffffffu, a.mean, distance),
            __shfl_down_sync(0xffffffffu, a.sqdev, distance)};
  }
};

template <typename acc_t>
struct Sums {
  acc_t dy, dy_x;  // dy_x: of dy * (x - mean)

  __device__ static Sums zero() { return {0, 0}; }
  __device__ static Sums merge(const Sums& a, const Sums& b) {
    return {a.dy + b.dy, a.dy_x + b.dy_x};
  }
  __device__ static Sums shift(const Sums& a, int distance) {
    return {__shfl_down_sync(0xffffffffu, a.dy, distance),
            __shfl_down_sync(0xffffffffu, a.dy_x, distance)};
  }
};

// Writes the block's total of every channel it holds.
template <typename Partial, int kPack, bool kPlanes>
__device__ inline void finish_block(const Walk<kPack, kPlanes>& walk, int lanes,
                                    const Partial* own, Partial* partials) {
  Partial* scratch = shared_memory<Partial>();
  partials += blockIdx.y * walk.channels;
  if constexpr (kPlanes) {
    const Partial total = block_reduce(own[0], scratch, &Partial::shift, &Partial::merge);
    if (threadIdx.x == 0) partials[walk.channel] = total;
    return;
  }
  const int held = lanes * kPack;
  for (int k = 0; k < kPack; ++k) {
    scratch[walk.row * held + walk.lane * kPack + k] = own[k];
  }
  __syncthreads();
  const int64_t first = static_cast<int64_t>(blockIdx.x) * held;
  for (int c = threadIdx.x; c < held && first + c < walk.channels; c += blockDim.x) {
    Partial total = scratch[c];
    for (int row = 1; row < walk.rows; ++row) {
      total = Partial::merge(total, scratch[row * held + c]);
    }
    partials[first + c] = total;
  }
}

// Shared memory of finish_block: a partial a warp, or one for each channel of each thread.
template <typename Partial>
int64_t scratch_bytes(const Image& image, int pack) {
  return sizeof(Partial) * (image.channels_last ? kThreads * pack : kThreads / kWarp);
}

// A warp a channel: merges the parts' results.
template <typename Partial>
__device__ inline Partial merge_parts(int64_t channel, int64_t channels, int64_t parts,
                                      const Partial* partials) {
  Partial total = Partial::zero();
  for (int64_t part = threadIdx.x % kWarp; part < parts; part += kWarp) {
    total = Partial::merge(total, partials[part * channels + channel]);
  }
  return warp_reduce(total, &Partial::shift, &Partial::merge);
}

}  // namespace pspnet::cuda
