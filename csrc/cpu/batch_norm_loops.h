// The local steps of batch normalization over raw memory. Each channel's values are taken in blocks
// that fit in the cache; a block's mean and squared deviations are exact passes over it, and blocks
// merge in a fixed order (Chan et al. 1979), so results do not depend on the number of threads.
#pragma once

#include <algorithm>
#include <limits>
#include <type_traits>

#include "registers.h"
#include "vectors.h"

namespace pspnet::cpu {

constexpr int64_t kBlock = 2048;      // elements of a plane
constexpr int64_t kPixelChunk = 256;  // pixels of channels-last input
constexpr int64_t kGrain = 32768;     // elements a thread should get at least

template <typename scalar_t, typename acc_t>
void plane_statistics(const scalar_t* input, int64_t images, int64_t channels, int64_t pixels,
                      int64_t channel, acc_t* mean_out, acc_t* sqdev_out) {
  double count = 0, mean = 0, sqdev = 0;
  for (int64_t n = 0; n < images; ++n) {
    for (int64_t start = 0; start < pixels; start += kBlock) {
      const scalar_t* x = input + (n * channels + channel) * pixels + start;
      const int64_t size = std::min(kBlock, pixels - start);
      const double block_mean = sum_over<acc_t>(size, [&](int64_t i, int64_t lanes) {
        return load<acc_t>(x + i, lanes);
      }) / size;
      const acc_t centre = static_cast<acc_t>(block_mean);
      const double block_sqdev = sum_over<acc_t>(size, [&](int64_t i, int64_t lanes) {
        Vec<acc_t> d = load<acc_t>(x + i, lanes) - centre;
        if (lanes < Lanes<acc_t>::kCount) d = keep<acc_t>(d, lanes);
        return d * d;
      }) - size * (block_mean - centre) * (block_mean - centre);
      const double delta = block_mean - mean, merged = count + size;
      mean += delta * (size / merged);
      sqdev += block_sqdev + delta * delta * (count * size / merged);
      count = merged;
    }
  }
  *mean_out = static_cast<acc_t>(mean);
  *sqdev_out = static_cast<acc_t>(std::max(sqdev, 0.0));
}

// Statistics of every channel over the pixels [begin, end) of channels-last input: groups of
// pixels, each exact about its own mean, merge one after the other.
template <typename scalar_t, typename acc_t>
void pixel_statistics(const scalar_t* input, int64_t channels, int64_t begin, int64_t end,
                      acc_t* mean, acc_t* sqdev) {
  std::fill_n(mean, channels, acc_t(0));
  std::fill_n(sqdev, channels, acc_t(0));
  for_each_group(begin, end, [&](int64_t p, auto group) {
    const double before = static_cast<double>(p - begin), after = before + group;
    const acc_t weight = static_cast<acc_t>(group / after);
    const acc_t spread = static_cast<acc_t>(before * (group / after));
    for_each_chunk<acc_t>(channels, [&](int64_t c, auto lanes) {
      constexpr int64_t kGroup = decltype(group)::value;
      Vec<acc_t> values[kGroup], sum{}, deviation{};
      for (int64_t k = 0; k < group; ++k) {
        values[k] = load<acc_t>(input + (p + k) * channels + c, lanes);
        sum += values[k];
      }
      const Vec<acc_t> centre = sum / static_cast<acc_t>(group);
      for (int64_t k = 0; k < group; ++k) {
        deviation += (values[k] - centre) * (values[k] - centre);
      }
      const Vec<acc_t> old = load<acc_t>(mean + c, lanes), delta = centre - old;
      store<acc_t>(old + delta * weight, mean + c, lanes);
      store<acc_t>(load<acc_t>(sqdev + c, lanes) + (deviation + delta * delta * spread),
                   sqdev + c, lanes);
    });
  });
}

// The per-channel numbers of a channel, or of a vector of channels; `scale` is invstd * weight.
template <typename acc_t>
struct Norm {
  const acc_t* mean;
  const acc_t* invstd;
  const acc_t* scale;
  const acc_t* bias;
};

// What the ReLU behind the normalization does to outputs and gradients; nothing unless kRelu.
template <typename scalar_t, typename acc_t, bool kRelu>
struct Relu {
  // Largest sum that is 0 or less once it is stored as scalar_t.
  static constexpr acc_t stored_as_zero() {
    if constexpr (std::is_same_v<scalar_t, acc_t>) {
      return 0;
    } else {
      return static_cast<acc_t>(std::numeric_limits<scalar_t>::denorm_min()) / 2;
    }
  }
  static Vec<acc_t> output(Vec<acc_t> y) {
    if constexpr (kRelu) y = y <= acc_t(0) ? Vec<acc_t>{} : y;
    return y;
  }
  static Vec<acc_t> gradient(Vec<acc_t> grad, Vec<acc_t> y) {
    if constexpr (kRelu) {
      constexpr int64_t kParts = Lanes<acc_t>::kCount / RegisterOf<acc_t>::kCount;
      Register<acc_t> parts[kParts], sums[kParts];
      std::memcpy(parts, &grad, sizeof(grad));
      std::memcpy(sums, &y, sizeof(y));
      for (int64_t k = 0; k < kParts; ++k) {
        parts[k] = sums[k] <= stored_as_zero() ? Register<acc_t>{} : parts[k];
      }
      std::memcpy(&grad, parts, sizeof(grad));
    }
    return grad;
  }
};

// The gradient before what is behind the normalization: a ReLU, or an addition and then a ReLU,
// whose gradient is kept for the tensor that was added.
template <typename scalar_t, typename acc_t, bool kRelu, bool kAdds>
struct Before {
  const scalar_t* grad;
  const scalar_t* residual;
  scalar_t* grad_residual;

  template <typename Count>
  __attribute__((always_inline)) Vec<acc_t> operator()(int64_t at, Count lanes,
                                                       Vec<acc_t> y) const {
    if constexpr (kAdds) y += load<acc_t>(residual + at, lanes);
    const Vec<acc_t> g =
        Relu<scalar_t, acc_t, kRelu>::gradient(load<acc_t>(grad + at, lanes), y);
    if constexpr (kAdds) store<acc_t>(g, grad_residual + at, lanes);
    return g;
  }
};

template <typename scalar_t, typename acc_t, typename Gradient>
void plane_backward_reduce(const Gradient& gradient, const scalar_t* input, int64_t images,
                           int64_t channels, int64_t pixels, int64_t channel,
                           const Norm<acc_t>& norm, acc_t* sum_dy, acc_t* sum_dy_xhat) {
  constexpr int64_t kCount = Lanes<acc_t>::kCount;
  const acc_t mean = norm.mean[channel], scale = norm.scale[channel], bias = norm.bias[channel];
  double dy = 0, dy_x = 0;
  for (int64_t n = 0; n < images; ++n) {
    for (int64_t start = 0; start < pixels; start += kBlock) {
      const int64_t at = (n * channels + channel) * pixels + start;
      const int64_t size = std::min(kBlock, pixels - start);
      Vec<acc_t> sums[2] = {}, products[2] = {};
      int64_t i = 0;
      for (; i + 2 * kCount <= size; i += 2 * kCount) {
        for (int64_t k = 0; k < 2; ++k) {
          const Vec<acc_t> d = load<acc_t>(input + at + i + k * kCount) - mean;
          const Vec<acc_t> g = gradient(at + i + k * kCount, kCount, d * scale + bias);
          sums[k] += g;
          products[k] += g * d;
        }
      }
      for (; i < size; i += kCount) {
        const int64_t lanes = std::min(kCount, size - i);
        const Vec<acc_t> d = load<acc_t>(input + at + i, lanes) - mean;
        const Vec<acc_t> g = gradient(at + i, lanes, d * scale + bias);
        sums[0] += g;
        products[0] += keep<acc_t>(g * d, lanes);
      }
      dy += total<acc_t>(sums[0] + sums[1]);
      dy_x += total<acc_t>(products[0] + products[1]);
    }
  }
  *sum_dy = static_cast<acc_t>(dy);
  *sum_dy_xhat = static_cast<acc_t>(dy_x * norm.invstd[channel]);
}

template <typename scalar_t, typename acc_t, typename Gradient>
void pixel_backward_reduce(const Gradient& gradient, const scalar_t* input, int64_t channels,
                           int64_t begin, int64_t end, const Norm<acc_t>& norm, acc_t* sum_dy,
                           acc_t* sum_dy_x) {
  constexpr int64_t kCount = Lanes<acc_t>::kCount;
  for_each_block<acc_t>(channels, [&](int64_t c, auto vectors, auto lanes) {
    constexpr int64_t kVectors = decltype(vectors)::value;
    Vec<acc_t> mean[kVectors], scale[kVectors], bias[kVectors];
    Vec<acc_t> dy[kVectors] = {}, dy_x[kVectors] = {};
    for (int64_t v = 0; v < kVectors; ++v) {
      mean[v] = load<acc_t>(norm.mean + c + v * kCount, lanes);
      scale[v] = load<acc_t>(norm.scale + c + v * kCount, lanes);
      bias[v] = load<acc_t>(norm.bias + c + v * kCount, lanes);
    }
    for (int64_t p = begin; p < end; ++p) {
      for (int64_t v = 0; v < kVectors; ++v) {
        const int64_t at = p * channels + c + v * kCount;
        const Vec<acc_t> d = load<acc_t>(input + at, lanes) - mean[v];
        const Vec<acc_t> g = gradient(at, lanes, d * scale[v] + bias[v]);
        dy[v] += g;
        dy_x[v] += g * d;
      }
    }
    for (int64_t v = 0; v < kVectors; ++v) {
      store<acc_t>(dy[v], sum_dy + c + v * kCount, lanes);
      store<acc_t>(dy_x[v], sum_dy_x + c + v * kCount, lanes);
    }
  });
}

// Two sums a channel over chunks of kPixelChunk pixels, in parallel: body(begin, end, first,
// second) fills one chunk's, merge(chunk size, first, second) takes them in order.
template <typename acc_t, typename Body, typename Merge>
void reduce_pixels(int64_t pixels, int64_t channels, const Body& body, const Merge& merge) {
  const int64_t chunks = (pixels + kPixelChunk - 1) / kPixelChunk;
  const auto partials = make_buffer<acc_t>(chunks * 2 * channels);
  const auto first = [&](int64_t chunk) { return partials.get() + chunk * 2 * channels; };
  at::parallel_for(0, chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      body(chunk * kPixelChunk, std::min((chunk + 1) * kPixelChunk, pixels), first(chunk),
           first(chunk) + channels);
    }
  });
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    merge(std::min(kPixelChunk, pixels - chunk * kPixelChunk), first(chunk),
          first(chunk) + channels);
  }
}

// Calls map(i, lanes, constants...) over all elements, a vector at a time. Each constant is the
// vector of a per-channel array's values that belong to the elements: one value in all lanes for
// planes, a channel a lane for channels-last.
template <typename acc_t, typename Map, typename... Arrays>
void for_each_vector(const at::Tensor& tensor, at::MemoryFormat format, const Map& map,
                     const Arrays*... arrays) {
  const Layout layout = layout_of(tensor, format);
  const int64_t images = tensor.size(0), channels = layout.channels, pixels = layout.pixels;
  if (!layout.channels_last) {
    const int64_t grain = std::max<int64_t>(1, kGrain / pixels);
    at::parallel_for(0, images * channels, grain, [&](int64_t begin, int64_t end) {
      for (int64_t plane = begin; plane < end; ++plane) {
        const int64_t c = plane % channels;
        for_each_chunk<acc_t>(pixels, [&](int64_t i, auto lanes) {
          map(plane * pixels + i, lanes, (Vec<acc_t>{} + arrays[c])...);
        });
      }
    });
    return;
  }
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(channels, 1));
  at::parallel_for(0, images * pixels, grain, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      for_each_chunk<acc_t>(channels, [&](int64_t c, auto lanes) {
        map(p * channels + c, lanes, load<acc_t>(arrays + c, lanes)...);
      });
    }
  });
}

}  // namespace pspnet::cpu
