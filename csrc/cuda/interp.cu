// Bilinear interpolation. Forward in the original's order (rows stretched, then blended), so
// float32 gives its bits; backward gathers, along columns first and then along rows.
#include "packs.h"
#include "places.h"

namespace pspnet::cuda {
namespace {

constexpr int kTile = 1024;  // columns of the output that a block takes, in planes

// Taps of one axis. Sizes are at most kMaxInterpSize, so 32 bits will do.
struct Axis {
  int in_size, out_size;
  float ratio;

  Axis(int64_t in, int64_t out)
      : in_size(static_cast<int>(in)), out_size(static_cast<int>(out)),
        ratio(interp_ratio(in, out)) {}
  __device__ InterpTapOf<int> tap(int o) const { return interp_tap(o, in_size, ratio); }
  // What input pixel `in` receives from output `o`.
  template <typename acc_t>
  __device__ acc_t weight(int o, int in) const {
    const InterpTapOf<int> at = tap(o);
    const acc_t upper = static_cast<acc_t>(at.lambda1);
    // At the last pixel both taps are the same one.
    acc_t weight = at.i0 == in ? acc_t(1) - upper : acc_t(0);
    if (at.i1 == in) weight += upper;
    return weight;
  }
};

struct Axes {
  Axis rows, cols;
  explicit Axes(const Resize& resize)
      : rows(resize.in_h, resize.out_h), cols(resize.in_w, resize.out_w) {}
};

__global__ void cover_kernel(Axes axes, Cover* covers) {
  const int64_t i = global_thread();
  if (i >= axes.rows.in_size + axes.cols.in_size) return;
  const bool is_row = i < axes.rows.in_size;
  const Axis& axis = is_row ? axes.rows : axes.cols;
  const int at = static_cast<int>(is_row ? i : i - axes.rows.in_size);
  const auto first = [&](const auto& test) {
    return static_cast<int32_t>(
        first_that(axis.out_size, [&](int64_t o) { return test(axis.tap(static_cast<int>(o))); }));
  };
  covers[i] = {first([&](const InterpTapOf<int>& tap) { return tap.i1 >= at; }),
               first([&](const InterpTapOf<int>& tap) { return tap.i0 > at; })};
}

// A block takes `height` output rows of one tile of one plane after the other. Rows that lie between
// the same two input rows share these, stretched into shared memory.
template <typename T>
__global__ void plane_forward_kernel(Resize resize, Axes axes, int height, const T* input,
                                     T* output) {
  using acc_t = acc_type<T>;
  constexpr int kPack = kPackBytes / sizeof(T);
  acc_t* upper = shared_memory<acc_t>();
  const int left = static_cast<int>(blockIdx.z) * kTile;
  const int width = axes.cols.out_size - left < kTile ? axes.cols.out_size - left : kTile;
  acc_t* lower = upper + width;
  const int first = static_cast<int>(blockIdx.y) * height;
  const int end = first + height < axes.rows.out_size ? first + height : axes.rows.out_size;
  const int64_t planes = resize.images * resize.channels;
  for (int64_t plane = blockIdx.x; plane < planes; plane += gridDim.x) {
    const T* source = input + plane * resize.image_pixels + resize.first_pixel;
    T* out_plane = output + plane * resize.out_h * resize.out_w + left;
    for (int begin = first, next; begin < end; begin = next) {
      const InterpTapOf<int> rows = axes.rows.tap(begin);
      for (next = begin + 1; next < end; ++next) {
        if (axes.rows.tap(next).i0 != rows.i0) break;
      }
      for (int x = threadIdx.x; x < width; x += blockDim.x) {
        const InterpTapOf<int> tap = axes.cols.tap(left + x);
        const acc_t right = static_cast<acc_t>(tap.lambda1);
        const T* row = source + rows.i0 * resize.image_w;
        upper[x] = (acc_t(1) - right) * widen(row[tap.i0]) + right * widen(row[tap.i1]);
        row = source + rows.i1 * resize.image_w;
        lower[x] = (acc_t(1) - right) * widen(row[tap.i0]) + right * widen(row[tap.i1]);
      }
      __syncthreads();
      // Packs are aligned in memory, not in the row: a row's first and last may be partial.
      const int packs = (width + 2 * (kPack - 1)) / kPack;
      const int items = (next - begin) * packs;
      for (int item = threadIdx.x; item < items; item += blockDim.x) {
        const int row = item / packs, y = begin + row;
        T* target = out_plane + y * resize.out_w;
        const int offset =
            static_cast<int>(reinterpret_cast<uintptr_t>(target) / sizeof(T) % kPack);
        const int x = (item - row * packs) * kPack - offset;
        const acc_t down = static_cast<acc_t>(axes.rows.tap(y).lambda1);
        acc_t values[kPack];
#pragma unroll
        for (int k = 0; k < kPack; ++k) {
          const bool inside = x + k >= 0 && x + k < width;
          values[k] = inside ? (acc_t(1) - down) * upper[x + k] + down * lower[x + k] : acc_t(0);
        }
        if (x >= 0 && x + kPack <= width) {
          store_pack<kPack>(values, target + x);
          continue;
        }
#pragma unroll
        for (int k = 0; k < kPack; ++k) {
          if (x + k >= 0 && x + k < width) narrow(values[k], target + x + k);
        }
      }
      __syncthreads();
    }
  }
}

// Channels-last: a thread a pack of channels of one pixel.
template <typename T, int kPack, typename Index>
__global__ void pixel_forward_kernel(Resize resize, Axes axes, Places<Index> places,
                                     const T* input, T* output) {
  using acc_t = acc_type<T>;
  const int64_t channels = resize.channels;
  for (Index item = global_thread(); item < places.items; item += all_threads()) {
    const Place<Index> place = places.at(item);
    const InterpTapOf<int> y = axes.rows.tap(static_cast<int>(place.row));
    const InterpTapOf<int> x = axes.cols.tap(static_cast<int>(place.col));
    const T* source = input + place.channel +
                      (place.outer * resize.image_pixels + resize.first_pixel) * channels;
    const T* upper = source + y.i0 * resize.image_w * channels;
    const T* lower = source + y.i1 * resize.image_w * channels;
    acc_t a[kPack], b[kPack], c[kPack], d[kPack];
    load_pack<kPack>(upper + x.i0 * channels, a);
    load_pack<kPack>(upper + x.i1 * channels, b);
    load_pack<kPack>(lower + x.i0 * channels, c);
    load_pack<kPack>(lower + x.i1 * channels, d);
    const acc_t right = static_cast<acc_t>(x.lambda1), left = acc_t(1) - right;
    const acc_t down = static_cast<acc_t>(y.lambda1), up = acc_t(1) - down;
    for (int k = 0; k < kPack; ++k) {
      a[k] = up * (left * a[k] + right * b[k]) + down * (left * c[k] + right * d[k]);
    }
    store_pack<kPack>(a, output + static_cast<int64_t>(item) * kPack);
  }
}

// A block takes `height` input rows of one plane after the other: sums over output rows for every
// output column of a tile, then over the tile's columns for every input column. Columns of several
// tiles add up in order.
template <typename T>
__global__ void plane_backward_kernel(Resize resize, Axes axes, int height, const Cover* covers,
                                      const T* grad_output, T* grad_input) {
  using acc_t = acc_type<T>;
  acc_t* columns = shared_memory<acc_t>();
  acc_t* sums = columns + kTile + kTile / kWarp;
  const int in_h = axes.rows.in_size, in_w = axes.cols.in_size, out_w = axes.cols.out_size;
  const int first = static_cast<int>(blockIdx.y) * height;
  const int end = first + height < in_h ? first + height : in_h;
  // One word in 33 stays empty, so that threads that read every eighth column meet no bank twice.
  const auto padded = [](int x) { return x + x / kWarp; };
  const int64_t planes = resize.images * resize.channels;
  for (int64_t plane = blockIdx.x; plane < planes; plane += gridDim.x) {
    const T* source = grad_output + plane * resize.out_h * resize.out_w;
    T* target = grad_input + plane * resize.image_pixels + resize.first_pixel;
    for (int y = first; y < end; ++y) {
      const Cover rows = covers[y];
      for (int left = 0; left < out_w; left += kTile) {
        const int right = left + kTile < out_w ? left + kTile : out_w;
        for (int x = left + threadIdx.x; x < right; x += blockDim.x) {
          const T* column = source + rows.first * resize.out_w + x;
          acc_t sum = 0;
#pragma unroll 4
          for (int o = rows.first; o < rows.last; ++o, column += resize.out_w) {
            sum += axes.rows.weight<acc_t>(o, y) * widen(*column);
          }
          columns[padded(x - left)] = sum;
        }
        __syncthreads();
        for (int x = threadIdx.x; x < in_w; x += blockDim.x) {
          const Cover cols = covers[in_h + x];
          const int begin = cols.first > left ? cols.first : left;
          const int stop = cols.last < right ? cols.last : right;
          acc_t sum = left > 0 ? sums[x] : acc_t(0);
          for (int o = begin; o < stop; ++o) {
            sum += axes.cols.weight<acc_t>(o, x) * columns[padded(o - left)];
          }
          if (right == out_w) {
            narrow(sum, target + y * resize.image_w + x);
          } else {
            sums[x] = sum;
          }
        }
        __syncthreads();
      }
    }
  }
}

template <typename T, int kPack, typename Index>
__global__ void pixel_backward_kernel(Resize resize, Axes axes, Places<Index> places,
                                      const Cover* covers, const T* grad_output, T* grad_input) {
  using acc_t = acc_type<T>;
  const int64_t channels = resize.channels;
  for (Index item = global_thread(); item < places.items; item += all_threads()) {
    const Place<Index> place = places.at(item);
    const int in_row = static_cast<int>(place.row), in_col = static_cast<int>(place.col);
    const Cover rows = covers[in_row], cols = covers[axes.rows.in_size + in_col];
    const T* row = grad_output + place.channel +
                   ((place.outer * resize.out_h + rows.first) * resize.out_w + cols.first) *
                       channels;
    acc_t sum[kPack] = {};
    for (int y = rows.first; y < rows.last; ++y, row += resize.out_w * channels) {
      acc_t across[kPack] = {};
      const T* source = row;
#pragma unroll 4
      for (int x = cols.first; x < cols.last; ++x, source += channels) {
        const acc_t weight = axes.cols.weight<acc_t>(x, in_col);
        acc_t grad[kPack];
        load_pack<kPack>(source, grad);
        for (int k = 0; k < kPack; ++k) across[k] += weight * grad[k];
      }
      const acc_t weight = axes.rows.weight<acc_t>(y, in_row);
      for (int k = 0; k < kPack; ++k) sum[k] += weight * across[k];
    }
    store_pack<kPack>(sum, grad_input + place.channel +
                               (place.outer * resize.image_pixels + resize.first_pixel +
                                in_row * resize.image_w + in_col) * channels);
  }
}

// Rows a block: enough blocks to fill a large card, enough rows to share what they read.
int rows_a_block(int64_t rows, int64_t planes) {
  int64_t height = rows;
  while (height > 16 && planes * ceil_div(rows, height) < 2048) height = ceil_div(height, 2);
  const int64_t least = ceil_div(rows, kMaxGridYZ);
  return static_cast<int>(height > least ? height : least);
}

dim3 grid_of_rows(const Resize& resize, int64_t rows, int height, int64_t tiles) {
  return dim3(grid_x(resize.images * resize.channels),
              static_cast<unsigned int>(ceil_div(rows, height)),
              static_cast<unsigned int>(tiles));  // of kMaxInterpSize pixels at most
}

// An image a side of the interpolation: of its inputs, or of its outputs.
Image image_of(const Resize& resize, int64_t height, int64_t width) {
  return {resize.images, resize.channels, height, width, true};
}

}  // namespace

void launch_interp_covers(const Resize& resize, Cover* covers, Stream stream) {
  PSPNET_LAUNCH(cover_kernel, blocks_for(resize.in_h + resize.in_w), kThreads, 0, stream,
                Axes(resize), covers);
}

void launch_interp_forward(DType dtype, const Resize& resize, const void* input, void* output,
                           Stream stream) {
  const Axes axes(resize);
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    const T* source = static_cast<const T*>(input);
    T* target = static_cast<T*>(output);
    if (!resize.channels_last) {
      const auto kernel = &plane_forward_kernel<T>;
      const int height = rows_a_block(resize.out_h, resize.images * resize.channels);
      const int64_t width = resize.out_w < kTile ? resize.out_w : kTile;
      PSPNET_LAUNCH(kernel,
                    grid_of_rows(resize, resize.out_h, height, ceil_div(resize.out_w, kTile)),
                    kThreads, 2 * width * sizeof(acc_type<T>), stream, resize, axes, height,
                    source, target);
      return;
    }
    const Image outputs = image_of(resize, resize.out_h, resize.out_w);
    dispatch_packs<T>(pack_of<T>(resize.channels, source, target), [&](auto pack) {
      constexpr int kPack = decltype(pack)::value;
      const int64_t items = outputs.images * outputs.channels * outputs.pixels() / kPack;
      dispatch_index(items, [&](auto index) {
        using Index = decltype(index);
        const auto kernel = &pixel_forward_kernel<T, kPack, Index>;
        PSPNET_LAUNCH(kernel, blocks_for(items), kThreads, 0, stream, resize, axes,
                      Places<Index>(outputs, kPack), source, target);
      });
    });
  });
}

void launch_interp_backward(DType dtype, const Resize& resize, const Cover* covers,
                            const void* grad_output, void* grad_input, Stream stream) {
  const Axes axes(resize);
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    const T* source = static_cast<const T*>(grad_output);
    T* target = static_cast<T*>(grad_input);
    // Beyond, the input's row of sums does not fit; a thread a pixel needs none.
    const int64_t shared = (kTile + kTile / kWarp + (resize.out_w > kTile ? resize.in_w : 0)) *
                           static_cast<int64_t>(sizeof(acc_type<T>));
    if (!resize.channels_last && shared <= kSharedBytes) {
      const auto kernel = &plane_backward_kernel<T>;
      const int height = rows_a_block(resize.in_h, resize.images * resize.channels);
      PSPNET_LAUNCH(kernel, grid_of_rows(resize, resize.in_h, height, 1), kThreads, shared, stream,
                    resize, axes, height, covers, source, target);
      return;
    }
    Resize as_pixels = resize;
    if (!resize.channels_last) {
      as_pixels.images *= as_pixels.channels;
      as_pixels.channels = 1;
    }
    const Image inputs = image_of(as_pixels, resize.in_h, resize.in_w);
    dispatch_packs<T>(pack_of<T>(as_pixels.channels, source, target), [&](auto pack) {
      constexpr int kPack = decltype(pack)::value;
      const int64_t items = inputs.images * inputs.channels * inputs.pixels() / kPack;
      dispatch_index(items, [&](auto index) {
        using Index = decltype(index);
        const auto kernel = &pixel_backward_kernel<T, kPack, Index>;
        PSPNET_LAUNCH(kernel, blocks_for(items), kThreads, 0, stream, as_pixels, axes,
                      Places<Index>(inputs, kPack), covers, source, target);
      });
    });
  });
}

}  // namespace pspnet::cuda
