// Pooling over windows, and over bins one level at a time: each thread makes one output, or one
// channels-last pack of them, in the original's order of sums. Backward passes gather.
#include <cfloat>

#include "packs.h"
#include "places.h"

namespace pspnet::cuda {
namespace {

// The first element of a place's channel, in a tensor of `pixels` an image.
template <typename Index>
__device__ inline int64_t base_of(const Place<Index>& place, int64_t pixels, int64_t step) {
  return static_cast<int64_t>(place.outer) * pixels * step + place.channel;
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

template <typename T, int kPack, bool kMax, typename Index>
__global__ void forward_kernel(Image image, AxisRule rows, AxisRule cols, Places<Index> places,
                               const T* input, T* output, int64_t* indices) {
  using acc_t = acc_type<T>;
  const int64_t step = image.channels_last ? image.channels : 1;
  for (Index item = global_thread(); item < places.items; item += all_threads()) {
    const Place<Index> place = places.at(item);
    const int64_t at = static_cast<int64_t>(item) * kPack;
    const T* plane = input + base_of(place, image.pixels(), step);
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
    if constexpr (kMax) {
      store_pack<kPack>(source, indices + at);
    } else {
      const acc_t area = static_cast<acc_t>(y.extent * x.extent);
      for (int k = 0; k < kPack; ++k) result[k] /= area;
    }
    store_pack<kPack>(result, output + at);
  }
}

// kLoads outputs of a row are read before the first is added.
template <typename T, int kPack, typename Index>
__global__ void max_backward_kernel(Image image, Levels levels, Places<Index> places,
                                    T* grad_input) {
  using acc_t = acc_type<T>;
  constexpr int kLoads = 2;
  const int64_t step = image.channels_last ? image.channels : 1;
  const int height = static_cast<int>(image.height), width = static_cast<int>(image.width);
  for (Index item = global_thread(); item < places.items; item += all_threads()) {
    const Place<Index> place = places.at(item);
    const int row = static_cast<int>(place.row), col = static_cast<int>(place.col);
    const int64_t pixel = static_cast<int64_t>(row) * width + col;
    acc_t sum[kPack] = {};
    for (int l = 0; l < levels.count; ++l) {
      const Level& level = levels.at[l];
      const Cover y = level.covers[row], x = level.covers[height + col];
      const int out_w = static_cast<int>(level.cols.outputs);
      int64_t line = base_of(place, level.rows.outputs * out_w, step) +
                     (static_cast<int64_t>(y.first) * out_w + x.first) * step;
      for (int i = y.first; i < y.last; ++i, line += out_w * step) {
        int64_t at = line;
#pragma unroll 1
        for (int j = x.first; j < x.last; j += kLoads, at += kLoads * step) {
          int64_t source[kLoads][kPack];
          acc_t grad[kLoads][kPack];
#pragma unroll
          for (int k = 0; k < kLoads; ++k) {
            if (j + k >= x.last) break;
            load_pack<kPack>(level.indices + at + k * step, source[k]);
            load_pack<kPack>(static_cast<const T*>(level.output) + at + k * step, grad[k]);
          }
#pragma unroll
          for (int k = 0; k < kLoads; ++k) {
            if (j + k >= x.last) break;
#pragma unroll
            for (int p = 0; p < kPack; ++p) {
              sum[p] += source[k][p] == pixel ? grad[k][p] : acc_t(0);
            }
          }
        }
      }
    }
    store_pack<kPack>(sum, grad_input + static_cast<int64_t>(item) * kPack);
  }
}

template <typename T, int kPack, typename Index>
__global__ void avg_backward_kernel(Image image, Levels levels, Places<Index> places,
                                    T* grad_input) {
  using acc_t = acc_type<T>;
  const int64_t step = image.channels_last ? image.channels : 1;
  for (Index item = global_thread(); item < places.items; item += all_threads()) {
    const Place<Index> place = places.at(item);
    acc_t sum[kPack] = {};
    for (int l = 0; l < levels.count; ++l) {
      const Level& level = levels.at[l];
      const int64_t base = base_of(place, level.rows.outputs * level.cols.outputs, step);
      const Cover y = level.covers[place.row], x = level.covers[image.height + place.col];
      for (int i = y.first; i < y.last; ++i) {
        const int64_t rows = level.rows.range(i).extent;
        for (int j = x.first; j < x.last; ++j) {
          acc_t grad[kPack];
          load_pack<kPack>(static_cast<const T*>(level.output) + base +
                               (i * level.cols.outputs + j) * step, grad);
          const acc_t area = static_cast<acc_t>(rows * level.cols.range(j).extent);
          for (int k = 0; k < kPack; ++k) sum[k] += grad[k] / area;
        }
      }
    }
    store_pack<kPack>(sum, grad_input + static_cast<int64_t>(item) * kPack);
  }
}

}  // namespace

void launch_pool_covers(const Level& level, Cover* covers, Stream stream) {
  PSPNET_LAUNCH(cover_kernel, blocks_for(level.rows.size + level.cols.size), kThreads, 0, stream,
                level.rows, level.cols, covers);
}

void launch_pool_forward(DType dtype, const Image& input, const void* data, const Level& level,
                         Stream stream) {
  const Image outputs{input.images, input.channels, level.rows.outputs, level.cols.outputs,
                      input.channels_last};
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    const T* source = static_cast<const T*>(data);
    T* target = static_cast<T*>(level.output);
    const int64_t run = input.channels_last ? input.channels : 1;
    dispatch_packs<T>(pack_of<T>(run, source, target), [&](auto pack) {
      constexpr int kPack = decltype(pack)::value;
      const int64_t items = outputs.images * outputs.channels * outputs.pixels() / kPack;
      dispatch_index(items, [&](auto index) {
        using Index = decltype(index);
        const auto kernel = level.indices != nullptr ? &forward_kernel<T, kPack, true, Index>
                                                     : &forward_kernel<T, kPack, false, Index>;
        PSPNET_LAUNCH(kernel, blocks_for(items), kThreads, 0, stream, input, level.rows,
                      level.cols, Places<Index>(outputs, kPack), source, target, level.indices);
      });
    });
  });
}

void launch_pool_backward(DType dtype, const Image& input, const Levels& levels, void* grad_input,
                          Stream stream) {
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    T* target = static_cast<T*>(grad_input);
    int64_t run = input.channels_last ? input.channels : 1;
    for (int l = 0; l < levels.count; ++l) {
      // Indices come from the caller and may start anywhere.
      run = levels.at[l].indices == nullptr || aligned(levels.at[l].indices) ? run : 1;
      run = pack_of<T>(run, static_cast<const T*>(levels.at[l].output));
    }
    dispatch_packs<T>(pack_of<T>(run, target), [&](auto pack) {
      constexpr int kPack = decltype(pack)::value;
      const int64_t items = input.images * input.channels * input.pixels() / kPack;
      dispatch_index(items, [&](auto index) {
        using Index = decltype(index);
        const auto kernel = levels.at[0].indices != nullptr
                                ? &max_backward_kernel<T, kPack, Index>
                                : &avg_backward_kernel<T, kPack, Index>;
        PSPNET_LAUNCH(kernel, blocks_for(items), kThreads, 0, stream, input, levels,
                      Places<Index>(input, kPack), target);
      });
    });
  });
}

}  // namespace pspnet::cuda
