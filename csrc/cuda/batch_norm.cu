// The local steps of batch normalization. Partial results merge in a fixed order, so results repeat
// bit for bit.
#include "batch_norm_partials.h"
#include "batch_norm_walk.h"

namespace pspnet::cuda {
namespace {

template <typename T, int kPack, bool kPlanes>
__global__ void statistics_kernel(Image image, int lanes, const T* input,
                                  Moments<acc_type<T>>* partials) {
  using acc_t = acc_type<T>;
  const Walk<kPack, kPlanes> walk(image, lanes);
  constexpr int kOwn = Walk<kPack, kPlanes>::kOwn;
  Moments<acc_t> own[kOwn];
  for (int k = 0; k < kOwn; ++k) own[k] = Moments<acc_t>::zero();
  if (!walk.idle()) {
    walk.for_each([&](const int64_t* offsets, auto loads) {
      constexpr int kCount = decltype(loads)::value;
      acc_t values[kCount][kPack];
#pragma unroll
      for (int k = 0; k < kCount; ++k) load_pack<kPack>(input + offsets[k], values[k]);
      // A thread's group of values is exact about its own mean before it merges.
      constexpr int kValues = kCount * kPack / kOwn;
#pragma unroll
      for (int own_k = 0; own_k < kOwn; ++own_k) {
        acc_t sum = 0, sqdev = 0;
#pragma unroll
        for (int v = 0; v < kValues; ++v) {
          sum += kPlanes ? values[v / kPack][v % kPack] : values[v][own_k];
        }
        const acc_t mean = sum / acc_t(kValues);
#pragma unroll
        for (int v = 0; v < kValues; ++v) {
          const acc_t d = (kPlanes ? values[v / kPack][v % kPack] : values[v][own_k]) - mean;
          sqdev += d * d;
        }
        own[own_k] = Moments<acc_t>::merge(own[own_k], {acc_t(kValues), mean, sqdev});
      }
    });
  }
  finish_block<Moments<acc_t>, kPack, kPlanes>(walk, lanes, own, partials);
}

// With kAdds also the gradient of what was added behind the normalization.
template <typename T, int kPack, bool kPlanes, bool kAdds>
__global__ void reduce_kernel(Image image, int lanes, const T* grad_output, const T* input,
                              BatchNorm norm, const T* residual, T* grad_residual,
                              Sums<acc_type<T>>* partials) {
  using acc_t = acc_type<T>;
  const Walk<kPack, kPlanes> walk(image, lanes);
  constexpr int kOwn = Walk<kPack, kPlanes>::kOwn;
  Sums<acc_t> own[kOwn];
  for (int k = 0; k < kOwn; ++k) own[k] = Sums<acc_t>::zero();
  if (!walk.idle()) {
    Channel<T> channels[kOwn];
    for (int k = 0; k < kOwn; ++k) channels[k].read(norm, walk.channel + k);
    walk.for_each([&](const int64_t* offsets, auto loads) {
      constexpr int kCount = decltype(loads)::value;
      acc_t x[kCount][kPack], grad[kCount][kPack], other[kAdds ? kCount : 1][kPack];
#pragma unroll
      for (int k = 0; k < kCount; ++k) {
        load_pack<kPack>(input + offsets[k], x[k]);
        load_pack<kPack>(grad_output + offsets[k], grad[k]);
        if constexpr (kAdds) load_pack<kPack>(residual + offsets[k], other[k]);
      }
#pragma unroll
      for (int k = 0; k < kCount; ++k) {
#pragma unroll
        for (int v = 0; v < kPack; ++v) {
          const Channel<T>& channel = channels[kPlanes ? 0 : v];
          Sums<acc_t>& sums = own[kPlanes ? 0 : v];
          const acc_t dy = kAdds ? channel.gradient(grad[k][v], x[k][v], other[k][v])
                                 : channel.gradient(grad[k][v], x[k][v]);
          sums.dy += dy;
          sums.dy_x += dy * (x[k][v] - channel.mean);
          if constexpr (kAdds) grad[k][v] = dy;
        }
        if constexpr (kAdds) store_pack<kPack>(grad[k], grad_residual + offsets[k]);
      }
    });
  }
  finish_block<Sums<acc_t>, kPack, kPlanes>(walk, lanes, own, partials);
}

template <typename acc_t>
__global__ void merge_kernel(int64_t channels, int64_t parts, const Moments<acc_t>* partials,
                             acc_t* mean, acc_t* sqdev) {
  const int64_t channel = global_thread() / kWarp;
  if (channel >= channels) return;
  const Moments<acc_t> total = merge_parts(channel, channels, parts, partials);
  if (threadIdx.x % kWarp == 0) {
    mean[channel] = total.mean;
    sqdev[channel] = total.sqdev;
  }
}

template <typename acc_t>
__global__ void sum_kernel(int64_t channels, int64_t parts, const Sums<acc_t>* partials,
                           const acc_t* invstd, acc_t* sum_dy, acc_t* sum_dy_xhat) {
  const int64_t channel = global_thread() / kWarp;
  if (channel >= channels) return;
  const Sums<acc_t> total = merge_parts(channel, channels, parts, partials);
  if (threadIdx.x % kWarp == 0) {
    sum_dy[channel] = total.dy;
    sum_dy_xhat[channel] = total.dy_x * invstd[channel];
  }
}

template <typename acc_t, typename out_t>
__global__ void combine_kernel(BatchNormRule rule, BatchNormArrays<acc_t, out_t> arrays) {
  const int64_t channel = global_thread();
  if (channel < rule.channels) combine_channel(rule, arrays, channel);
}

template <typename T, int kPack, bool kPlanes, bool kAdds>
__global__ void normalize_kernel(Image image, int lanes, const T* input, BatchNorm norm,
                                 const T* residual, T* output) {
  using acc_t = acc_type<T>;
  const Walk<kPack, kPlanes> walk(image, lanes);
  constexpr int kOwn = Walk<kPack, kPlanes>::kOwn;
  if (walk.idle()) return;
  Channel<T> channels[kOwn];
  for (int k = 0; k < kOwn; ++k) channels[k].read(norm, walk.channel + k);
  walk.for_each([&](const int64_t* offsets, auto loads) {
    constexpr int kCount = decltype(loads)::value;
    acc_t x[kCount][kPack], other[kAdds ? kCount : 1][kPack];
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
      load_pack<kPack>(input + offsets[k], x[k]);
      if constexpr (kAdds) load_pack<kPack>(residual + offsets[k], other[k]);
    }
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
#pragma unroll
      for (int v = 0; v < kPack; ++v) {
        const Channel<T>& channel = channels[kPlanes ? 0 : v];
        x[k][v] = kAdds ? channel.output(x[k][v], other[k][v]) : channel.output(x[k][v]);
      }
      store_pack<kPack>(x[k], output + offsets[k]);
    }
  });
}

template <typename T, int kPack, bool kPlanes>
__global__ void elementwise_kernel(Image image, int lanes, const T* grad_output, const T* input,
                                   BatchNorm norm, const acc_type<T>* mean_dy,
                                   const acc_type<T>* mean_dy_xhat, T* grad_input) {
  using acc_t = acc_type<T>;
  const Walk<kPack, kPlanes> walk(image, lanes);
  constexpr int kOwn = Walk<kPack, kPlanes>::kOwn;
  if (walk.idle()) return;
  Channel<T> channels[kOwn];
  acc_t offset[kOwn], slope[kOwn];
  for (int k = 0; k < kOwn; ++k) {
    channels[k].read(norm, walk.channel + k);
    offset[k] = mean_dy[walk.channel + k];
    slope[k] = channels[k].invstd * mean_dy_xhat[walk.channel + k];
  }
  walk.for_each([&](const int64_t* offsets, auto loads) {
    constexpr int kCount = decltype(loads)::value;
    acc_t x[kCount][kPack], grad[kCount][kPack];
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
      load_pack<kPack>(input + offsets[k], x[k]);
      load_pack<kPack>(grad_output + offsets[k], grad[k]);
    }
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
#pragma unroll
      for (int v = 0; v < kPack; ++v) {
        const int own = kPlanes ? 0 : v;
        const Channel<T>& channel = channels[own];
        const acc_t dy = channel.gradient(grad[k][v], x[k][v]) - offset[own];
        x[k][v] = (dy - (x[k][v] - channel.mean) * slope[own]) * channel.scale;
      }
      store_pack<kPack>(x[k], grad_input + offsets[k]);
    }
  });
}

template <typename acc_t, typename out_t>
BatchNormArrays<acc_t, out_t> typed(const BatchNormArrays<void, void>& from) {
  return {static_cast<const acc_t*>(from.means),   static_cast<const acc_t*>(from.sqdevs),
          static_cast<const acc_t*>(from.counts),  static_cast<out_t*>(from.running_mean),
          static_cast<out_t*>(from.running_var),   static_cast<out_t*>(from.mean),
          static_cast<out_t*>(from.invstd),        from.total};
}

}  // namespace

int64_t batch_norm_parts(const Image& input) { return parts_of(input); }

void launch_batch_norm_statistics(DType dtype, const Image& input, const void* data,
                                  void* partials, Stream stream) {
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    using Partial = Moments<acc_type<T>>;
    const T* x = static_cast<const T*>(data);
    launch_walk<T>(input, [&](auto pack, dim3 grid, int lanes) {
      constexpr int kPack = decltype(pack)::value;
      const auto kernel = input.channels_last ? &statistics_kernel<T, kPack, false>
                                              : &statistics_kernel<T, kPack, true>;
      PSPNET_LAUNCH(kernel, grid, kThreads, scratch_bytes<Partial>(input, kPack), stream, input,
                    lanes, x, static_cast<Partial*>(partials));
    }, x);
  });
}

void launch_batch_norm_merge(DType dtype, const Image& input, const void* partials, void* mean,
                             void* sqdev, Stream stream) {
  dispatch(dtype, [&](auto zero) {
    using acc_t = acc_type<decltype(zero)>;
    const auto kernel = &merge_kernel<acc_t>;
    PSPNET_LAUNCH(kernel, blocks_for(input.channels * kWarp), kThreads, 0, stream, input.channels,
                  parts_of(input), static_cast<const Moments<acc_t>*>(partials),
                  static_cast<acc_t*>(mean), static_cast<acc_t*>(sqdev));
  });
}

void launch_batch_norm_combine(DType dtype, DType out_dtype, const BatchNormRule& rule,
                               const BatchNormArrays<void, void>& arrays, Stream stream) {
  dispatch_wide(dtype, [&](auto acc) {
    dispatch_wide(out_dtype, [&](auto out) {
      using acc_t = decltype(acc);
      using out_t = decltype(out);
      const auto kernel = &combine_kernel<acc_t, out_t>;
      PSPNET_LAUNCH(kernel, blocks_for(rule.channels), kThreads, 0, stream, rule,
                    (typed<acc_t, out_t>(arrays)));
    });
  });
}

void launch_batch_norm_normalize(DType dtype, const Image& input, const void* data,
                                 const BatchNorm& norm, const void* residual, void* output,
                                 Stream stream) {
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    const T* x = static_cast<const T*>(data);
    const T* r = static_cast<const T*>(residual);
    T* y = static_cast<T*>(output);
    launch_walk<T>(input, [&](auto pack, dim3 grid, int lanes) {
      constexpr int kPack = decltype(pack)::value;
      const auto kernel =
          r == nullptr ? (input.channels_last ? &normalize_kernel<T, kPack, false, false>
                                              : &normalize_kernel<T, kPack, true, false>)
                       : (input.channels_last ? &normalize_kernel<T, kPack, false, true>
                                              : &normalize_kernel<T, kPack, true, true>);
      PSPNET_LAUNCH(kernel, grid, kThreads, 0, stream, input, lanes, x, norm, r, y);
    }, x, r, y);
  });
}

void launch_batch_norm_backward_reduce(DType dtype, const Image& input, const void* grad_output,
                                       const void* data, const BatchNorm& norm,
                                       const void* residual, void* grad_residual, void* partials,
                                       Stream stream) {
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    using Partial = Sums<acc_type<T>>;
    const T* g = static_cast<const T*>(grad_output);
    const T* x = static_cast<const T*>(data);
    const T* r = static_cast<const T*>(residual);
    T* dr = static_cast<T*>(grad_residual);
    launch_walk<T>(input, [&](auto pack, dim3 grid, int lanes) {
      constexpr int kPack = decltype(pack)::value;
      const auto kernel =
          r == nullptr ? (input.channels_last ? &reduce_kernel<T, kPack, false, false>
                                              : &reduce_kernel<T, kPack, true, false>)
                       : (input.channels_last ? &reduce_kernel<T, kPack, false, true>
                                              : &reduce_kernel<T, kPack, true, true>);
      PSPNET_LAUNCH(kernel, grid, kThreads, scratch_bytes<Partial>(input, kPack), stream, input,
                    lanes, g, x, norm, r, dr, static_cast<Partial*>(partials));
    }, g, x, r, dr);
  });
}

void launch_batch_norm_sum(DType dtype, const Image& input, const void* partials,
                           const BatchNorm& norm, void* sum_dy, void* sum_dy_xhat, Stream stream) {
  dispatch(dtype, [&](auto zero) {
    using acc_t = acc_type<decltype(zero)>;
    const auto kernel = &sum_kernel<acc_t>;
    PSPNET_LAUNCH(kernel, blocks_for(input.channels * kWarp), kThreads, 0, stream, input.channels,
                  parts_of(input), static_cast<const Sums<acc_t>*>(partials),
                  static_cast<const acc_t*>(norm.invstd), static_cast<acc_t*>(sum_dy),
                  static_cast<acc_t*>(sum_dy_xhat));
  });
}

void launch_batch_norm_backward_elementwise(DType dtype, const Image& input,
                                            const void* grad_output, const void* data,
                                            const BatchNorm& norm, const void* mean_dy,
                                            const void* mean_dy_xhat, void* grad_input,
                                            Stream stream) {
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    using acc_t = acc_type<T>;
    const T* g = static_cast<const T*>(grad_output);
    const T* x = static_cast<const T*>(data);
    T* dx = static_cast<T*>(grad_input);
    launch_walk<T>(input, [&](auto pack, dim3 grid, int lanes) {
      constexpr int kPack = decltype(pack)::value;
      const auto kernel = input.channels_last ? &elementwise_kernel<T, kPack, false>
                                              : &elementwise_kernel<T, kPack, true>;
      PSPNET_LAUNCH(kernel, grid, kThreads, 0, stream, input, lanes, g, x, norm,
                    static_cast<const acc_t*>(mean_dy), static_cast<const acc_t*>(mean_dy_xhat),
                    dx);
    }, g, x, dx);
  });
}

}  // namespace pspnet::cuda
