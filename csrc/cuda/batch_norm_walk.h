// How the threads of batch normalization share a tensor out, and what they keep of a channel.
#pragma once

#include "packs.h"

namespace pspnet::cuda {

constexpr int kLoads = 4;  // packs in flight

// A block's part of a tensor. Planes: one channel (blockIdx.x), all threads along its elements.
// Channels-last: `lanes` threads side by side, a pack of channels each, the others along pixels.
// blockIdx.y numbers the parts of a channel's elements.
template <int kPack, bool kPlanes>
struct Walk {
  static constexpr int kOwn = kPlanes ? 1 : kPack;  // channels of a thread
  int64_t channels, pixels;
  int64_t begin, end;  // elements of a channel, counted over images
  int lane, row, rows;
  int64_t channel;     // first of the thread's

  __device__ Walk(const Image& image, int lanes)
      : channels(image.channels), pixels(image.pixels()) {
    const int unit = kPlanes ? kPack : 1;
    const int64_t units = image.images * pixels / unit;
    const int64_t size = ceil_div(units, gridDim.y) * unit;
    begin = blockIdx.y * size < units * unit ? blockIdx.y * size : units * unit;
    end = begin + size < units * unit ? begin + size : units * unit;
    lane = kPlanes ? 0 : threadIdx.x % lanes;
    row = kPlanes ? threadIdx.x : threadIdx.x / lanes;
    rows = kPlanes ? blockDim.x : blockDim.x / lanes;
    channel = kPlanes ? blockIdx.x : (blockIdx.x * static_cast<int64_t>(lanes) + lane) * kPack;
  }

  __device__ bool idle() const { return channel >= channels; }

  // body(offsets, Count): offsets of as many packs, kLoads of them while there are so many.
  template <typename Body>
  __device__ void for_each(const Body& body) const {
    const int unit = kPlanes ? kPack : 1;
    const int64_t step = static_cast<int64_t>(rows) * unit;
    int64_t i = begin + static_cast<int64_t>(row) * unit;
    if (i >= end) return;
    int64_t pixel = i, base = channel;
    if constexpr (kPlanes) {
      const Split at = split(i, pixels);
      pixel = at.remainder;
      base = (at.quotient * channels + channel) * pixels;
    }
    const auto next = [&]() {
      const int64_t offset = kPlanes ? base + pixel : base + pixel * channels;
      pixel += step;
      if constexpr (kPlanes) {
        while (pixel >= pixels) {
          pixel -= pixels;
          base += channels * pixels;
        }
      }
      return offset;
    };
    for (; i + (kLoads - 1) * step < end; i += kLoads * step) {
      int64_t offsets[kLoads];
#pragma unroll
      for (int k = 0; k < kLoads; ++k) offsets[k] = next();
      body(offsets, Count<kLoads>());
    }
    for (; i < end; i += step) {
      const int64_t offset = next();
      body(&offset, Count<1>());
    }
  }
};

// How many parts a channel's elements are shared out to, by the sizes alone: results do not depend
// on the card.
inline int64_t parts_of(const Image& image) {
  const int64_t elements = image.images * image.pixels();
  const int64_t side_by_side =
      image.channels_last ? (image.channels < 128 ? image.channels : 128) : 8;
  const int64_t parts = ceil_div(elements * side_by_side, int64_t{1} << 16);
  return parts < 1 ? 1 : parts < 512 ? parts : 512;
}

// Calls launch(Count<pack>, integral planes, grid, lanes) as the layout and alignment allow.
template <typename T, typename Launch, typename... Pointers>
void launch_walk(const Image& image, const Launch& launch, const Pointers*... pointers) {
  const int64_t run = image.channels_last ? image.channels : image.pixels();
  dispatch_packs<T>(pack_of<T>(run, pointers...), [&](auto pack) {
    const int64_t packs = image.channels / pack.value;
    int lanes = kWarp;
    while (lanes / 2 >= packs && lanes > 1) lanes /= 2;
    const int64_t slices = image.channels_last ? ceil_div(packs, lanes) : image.channels;
    launch(pack, dim3(static_cast<unsigned int>(slices),
                      static_cast<unsigned int>(parts_of(image))), lanes);
  });
}

// The per-channel numbers of one channel.
template <typename T>
struct Channel {
  using acc_t = acc_type<T>;
  acc_t mean, invstd, scale, bias;
  bool relu;

  __device__ void read(const BatchNorm& norm, int64_t c) {
    mean = static_cast<const acc_t*>(norm.mean)[c];
    invstd = static_cast<const acc_t*>(norm.invstd)[c];
    scale = invstd * static_cast<const acc_t*>(norm.weight)[c];
    bias = static_cast<const acc_t*>(norm.bias)[c];
    relu = norm.relu;
  }
  __device__ acc_t output(acc_t x) const { return behind((x - mean) * scale + bias); }
  __device__ acc_t output(acc_t x, acc_t residual) const {
    return behind((x - mean) * scale + bias + residual);
  }
  __device__ acc_t behind(acc_t y) const { return relu && y <= acc_t(0) ? acc_t(0) : y; }
  // The gradient before the ReLU, which let through what is positive as stored.
  __device__ acc_t gradient(acc_t grad, acc_t x) const {
    return relu && rounded<T>((x - mean) * scale + bias) <= acc_t(0) ? acc_t(0) : grad;
  }
  __device__ acc_t gradient(acc_t grad, acc_t x, acc_t residual) const {
    return rounded<T>((x - mean) * scale + bias + residual) <= acc_t(0) ? acc_t(0) : grad;
  }
};

}  // namespace pspnet::cuda
