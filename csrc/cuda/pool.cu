// Pooling over windows, and over bins one level at a time: each thread makes one output, or one
// channels-last pack of them, in the original's order of sums. Backward passes gather.
#include <cfloat>

#include "launch.h"

namespace pspnet::cuda {
namespace {

// Where the `item`-th pack of a tensor of height * width pixels lies: image and channel for
// channels-last data, plane and 0 otherwise.
struct Place {
  int64_t outer;
  int64_t channel;
  int64_t row;
  int64_t col;
  // Offset of this channel's first pixel in a tensor of `pixels` an image, `step` elements apart.
  __device__ int64_t base(int64_t pixels, int64_t step) const {
    return outer * pixels * step + channel;
  }
};

__device__ inline Place place_of(int64_t item, const Image& image, int pack, int64_t height,
                                 int64_t width) {
  Split channel{item, 0};
  if (image.channels_last) channel = split(item, image.channels / pack);
  const Split col = split(channel.quotient, width);
  const Split row = split(col.quotient, height);
  return {row.quotient, channel.remainder * pack, row.remainder, col.remainder};
}

__global__ void cover_kernel(AxisRule rows, AxisRule cols, Cover* covers) {
  const int64_t i = global_thread();
  if (i >= rows.size + cols.size) return;
  const AxisRule& rule = i < rows.size ? rows : cols;
  const int64_t at = i < rows.size ? i : i - rows.size;
  covers[i] = {
      static_cast<int32_t>(first_that(rule.outputs,
                                      [&](int64_t o) { return rule.range(o).end > at; })),
      static_cast<int32_t>(first_that(rule.outputs,
                                      [&](int64_t o) { return rule.range(o).begin > at; }))};
}

template <typename T, int kPack, bool kMax>
__global__ void forward_kernel(Image image, AxisRule rows, AxisRule cols, const T* input,
                               T* output, int64_t* indices) {
  using acc_t = acc_type<T>;
  const int64_t items =
      image.images * image.channels * rows.outputs * cols.outputs / kPack;
  const int64_t step = image.channels_last ? image.channels : 1;
  for (int64_t item = global_thread(); item < items; item += all_threads()) {
    const Place place = place_of(item, image, kPack, rows.outputs, cols.outputs);
    const T* plane = input + place.base(image.pixels(), step);
    const AxisRange y = rows.range(place.row), x = cols.range(place.col);
    acc_t result[kPack];
    int64_t source[kPack];
    for (int k = 0; k < kPack; ++k) {
      result[k] = kMax ? static_cast<acc_t>(-FLT_MAX) : acc_t(0);
      source[k] = -1;
    }
    for (int64_t row = y.begin; row < y.end; ++row) {
      const int64_t pixel = row * image.width;
#pragma unroll 4
      for (int64_t col = x.begin; col < x.end; ++col) {
        acc_t values[kPack];
        load_pack<kPack>(plane + (pixel + col) * step, values);
        for (int k = 0; k < kPack; ++k) {
          if constexpr (kMax) {
            // The first maximum wins, and the first NaN for good.
            const bool take = values[k] > result[k] ||
                              (values[k] != values[k] && result[k] == result[k]);
            result[k] = take ? values[k] : result[k];
            source[k] = take ? pixel + col : source[k];
          } else {
            result[k] += values[k];
          }
        }
      }
    }
    for (int k = 0; k < kPack; ++k) {
      if constexpr (kMax) {
        indices[item * kPack + k] = source[k];
      } else {
        result[k] /= static_cast<acc_t>(y.extent * x.extent);
      }
    }
    store_pack<kPack>(result, output + item * kPack);
  }
}

template <typename T, int kPack, bool kMax>
__global__ void backward_kernel(Image image, Levels levels, T* grad_input) {
  using acc_t = acc_type<T>;
  const int64_t items = image.images * image.channels * image.pixels() / kPack;
  const int64_t step = image.channels_last ? image.channels : 1;
  for (int64_t item = global_thread(); item < items; item += all_threads()) {
    const Place place = place_of(item, image, kPack, image.height, image.width);
    const int64_t pixel = place.row * image.width + place.col;
    acc_t sum[kPack] = {};
    for (int l = 0; l < levels.count; ++l) {
      const Level& level = levels.at[l];
      const int64_t base = place.base(level.rows.outputs * level.cols.outputs, step);
      const Cover y = level.covers[place.row], x = level.covers[image.height + place.col];
      for (int64_t i = y.first; i < y.last; ++i) {
        for (int64_t j = x.first; j < x.last; ++j) {
          const int64_t at = base + (i * level.cols.outputs + j) * step;
          acc_t grad[kPack];
          load_pack<kPack>(static_cast<const T*>(level.output) + at, grad);
          const acc_t area =
              static_cast<acc_t>(level.rows.range(i).extent * level.cols.range(j).extent);
          for (int k = 0; k < kPack; ++k) {
            if constexpr (kMax) {
              sum[k] += level.indices[at + k] == pixel ? grad[k] : acc_t(0);
            } else {
              sum[k] += grad[k] / area;
            }
          }
        }
      }
    }
    store_pack<kPack>(sum, grad_input + item * kPack);
  }
}

}  // namespace

void launch_pool_covers(const Level& level, Cover* covers, Stream stream) {
  PSPNET_LAUNCH(cover_kernel, blocks_for(level.rows.size + level.cols.size), kThreads, 0, stream,
                level.rows, level.cols, covers);
}

void launch_pool_forward(DType dtype, const Image& input, const void* data, const Level& level,
                         Stream stream) {
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    const T* source = static_cast<const T*>(data);
    T* target = static_cast<T*>(level.output);
    dispatch_packs<T>(
        packs_of_channels<T>(input.channels_last, input.channels, source, target),
        [&](auto pack) {
          constexpr int kPack = decltype(pack)::value;
          const auto kernel = level.indices != nullptr ? &forward_kernel<T, kPack, true>
                                                       : &forward_kernel<T, kPack, false>;
          const int64_t items = input.images * input.channels * level.rows.outputs *
                                level.cols.outputs / kPack;
          PSPNET_LAUNCH(kernel, blocks_for(items), kThreads, 0, stream, input, level.rows,
                        level.cols, source, target, level.indices);
        });
  });
}

void launch_pool_backward(DType dtype, const Image& input, const Levels& levels, void* grad_input,
                          Stream stream) {
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    T* target = static_cast<T*>(grad_input);
    bool whole = packs_of_channels<T>(input.channels_last, input.channels, target);
    for (int l = 0; l < levels.count; ++l) {
      whole = whole && aligned(static_cast<const T*>(levels.at[l].output));
    }
    dispatch_packs<T>(whole, [&](auto pack) {
      constexpr int kPack = decltype(pack)::value;
      const auto kernel = levels.at[0].indices != nullptr ? &backward_kernel<T, kPack, true>
                                                          : &backward_kernel<T, kPack, false>;
      const int64_t items = input.images * input.channels * input.pixels() / kPack;
      PSPNET_LAUNCH(kernel, blocks_for(items), kThreads, 0, stream, input, levels, target);
    });
  });
}

}  // namespace pspnet::cuda
