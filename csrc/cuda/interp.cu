// Bilinear interpolation. Forward in the original's order (rows stretched, then blended), so
// float32 gives its bits; backward gathers, along columns first and then along rows.
#include "launch.h"

namespace pspnet::cuda {
namespace {

constexpr int kTile = 1024;  // columns of the output that a block takes, in planes

// What each input pixel of one axis receives from output `o`.
template <typename acc_t>
__device__ inline acc_t tap_weight(int64_t o, int64_t in, int64_t in_size, float ratio) {
  const InterpTap tap = interp_tap(o, in_size, ratio);
  const acc_t upper = static_cast<acc_t>(tap.lambda1);
  // At the last pixel both taps are the same one.
  acc_t weight = tap.i0 == in ? acc_t(1) - upper : acc_t(0);
  if (tap.i1 == in) weight += upper;
  return weight;
}

__global__ void cover_kernel(Resize resize, Cover* covers) {
  const int64_t i = global_thread();
  if (i >= resize.in_h + resize.in_w) return;
  const bool is_row = i < resize.in_h;
  const int64_t in_size = is_row ? resize.in_h : resize.in_w;
  const int64_t outputs = is_row ? resize.out_h : resize.out_w;
  const int64_t at = is_row ? i : i - resize.in_h;
  const float ratio = interp_ratio(in_size, outputs);
  covers[i] = {static_cast<int32_t>(first_that(
                   outputs, [&](int64_t o) { return interp_tap(o, in_size, ratio).i1 >= at; })),
               static_cast<int32_t>(first_that(
                   outputs, [&](int64_t o) { return interp_tap(o, in_size, ratio).i0 > at; }))};
}

// A block takes `height` output rows of one tile of one plane. Rows that lie between the same two
// input rows share these, stretched into shared memory.
template <typename T>
__global__ void plane_forward_kernel(Resize resize, int height, const T* input, T* output) {
  using acc_t = acc_type<T>;
  constexpr int kPack = kPackBytes / sizeof(T);
  acc_t* upper = shared_memory<acc_t>();
  const int64_t plane = blockIdx.x, left = static_cast<int64_t>(blockIdx.z) * kTile;
  const int width = static_cast<int>(resize.out_w - left < kTile ? resize.out_w - left : kTile);
  acc_t* lower = upper + width;
  const T* source = input + plane * resize.image_pixels + resize.first_pixel;
  const float row_ratio = interp_ratio(resize.in_h, resize.out_h);
  const float col_ratio = interp_ratio(resize.in_w, resize.out_w);
  const int64_t first = static_cast<int64_t>(blockIdx.y) * height;
  const int64_t end = first + height < resize.out_h ? first + height : resize.out_h;
  for (int64_t begin = first, next; begin < end; begin = next) {
    const InterpTap rows = interp_tap(begin, resize.in_h, row_ratio);
    for (next = begin + 1; next < end; ++next) {
      if (interp_tap(next, resize.in_h, row_ratio).i0 != rows.i0) break;
    }
    for (int x = threadIdx.x; x < width; x += blockDim.x) {
      const InterpTap tap = interp_tap(left + x, resize.in_w, col_ratio);
      const acc_t right = static_cast<acc_t>(tap.lambda1);
      const T* row = source + rows.i0 * resize.image_w;
      upper[x] = (acc_t(1) - right) * widen(row[tap.i0]) +
                 right * widen(row[tap.i1]);
      row = source + rows.i1 * resize.image_w;
      lower[x] = (acc_t(1) - right) * widen(row[tap.i0]) +
                 right * widen(row[tap.i1]);
    }
    __syncthreads();
    // Packs are aligned in memory, not in the row: a row's first and last may be partial.
    const int packs = (width + 2 * (kPack - 1)) / kPack;
    const int items = static_cast<int>(next - begin) * packs;
    for (int item = threadIdx.x; item < items; item += blockDim.x) {
      const int64_t y = begin + item / packs;
      T* target = output + (plane * resize.out_h + y) * resize.out_w + left;
      const int offset = static_cast<int>(
          reinterpret_cast<uintptr_t>(target) / sizeof(T) % kPack);
      const int x = item % packs * kPack - offset;
      const acc_t down = static_cast<acc_t>(interp_tap(y, resize.in_h, row_ratio).lambda1);
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

// Channels-last: a thread a pack of channels of one pixel.
template <typename T, int kPack>
__global__ void pixel_forward_kernel(Resize resize, const T* input, T* output) {
  using acc_t = acc_type<T>;
  const int64_t channels = resize.channels;
  const int64_t items = resize.images * channels * resize.out_h * resize.out_w / kPack;
  const float row_ratio = interp_ratio(resize.in_h, resize.out_h);
  const float col_ratio = interp_ratio(resize.in_w, resize.out_w);
  for (int64_t item = global_thread(); item < items; item += all_threads()) {
    const Split channel = split(item, channels / kPack);
    const Split col = split(channel.quotient, resize.out_w);
    const Split row = split(col.quotient, resize.out_h);
    const InterpTap y = interp_tap(row.remainder, resize.in_h, row_ratio);
    const InterpTap x = interp_tap(col.remainder, resize.in_w, col_ratio);
    const T* source = input +
                      (row.quotient * resize.image_pixels + resize.first_pixel) * channels +
                      channel.remainder * kPack;
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
    store_pack<kPack>(a, output + item * kPack);
  }
}

// A block takes `height` input rows of one plane, one after the other: sums over output rows for
// every output column of a tile, then over the tile's columns for every input column. Columns of
// several tiles add up in order.
template <typename T>
__global__ void plane_backward_kernel(Resize resize, int height, const Cover* covers,
                                      const T* grad_output, T* grad_input) {
  using acc_t = acc_type<T>;
  acc_t* columns = shared_memory<acc_t>();
  acc_t* sums = columns + kTile + kTile / kWarp;
  const int64_t plane = blockIdx.x;
  const float row_ratio = interp_ratio(resize.in_h, resize.out_h);
  const float col_ratio = interp_ratio(resize.in_w, resize.out_w);
  const T* source = grad_output + plane * resize.out_h * resize.out_w;
  T* target = grad_input + plane * resize.image_pixels + resize.first_pixel;
  const int64_t first = static_cast<int64_t>(blockIdx.y) * height;
  const int64_t end = first + height < resize.in_h ? first + height : resize.in_h;
  // One word in 33 stays empty, so that threads that read every eighth column meet no bank twice.
  const auto padded = [](int64_t x) { return x + x / kWarp; };
  for (int64_t y = first; y < end; ++y) {
    const Cover rows = covers[y];
    for (int64_t left = 0; left < resize.out_w; left += kTile) {
      const int64_t right = left + kTile < resize.out_w ? left + kTile : resize.out_w;
      for (int64_t x = left + threadIdx.x; x < right; x += blockDim.x) {
        acc_t sum = 0;
#pragma unroll 4
        for (int64_t o = rows.first; o < rows.last; ++o) {
          sum += tap_weight<acc_t>(o, y, resize.in_h, row_ratio) *
                 widen(source[o * resize.out_w + x]);
        }
        columns[padded(x - left)] = sum;
      }
      __syncthreads();
      for (int64_t x = threadIdx.x; x < resize.in_w; x += blockDim.x) {
        const Cover cols = covers[resize.in_h + x];
        const int64_t begin = cols.first > left ? cols.first : left;
        const int64_t stop = cols.last < right ? cols.last : right;
        acc_t sum = left > 0 ? sums[x] : acc_t(0);
        for (int64_t o = begin; o < stop; ++o) {
          sum += tap_weight<acc_t>(o, x, resize.in_w, col_ratio) * columns[padded(o - left)];
        }
        if (right == resize.out_w) {
          narrow(sum, target + y * resize.image_w + x);
        } else {
          sums[x] = sum;
        }
      }
      __syncthreads();
    }
  }
}

template <typename T, int kPack>
__global__ void pixel_backward_kernel(Resize resize, const Cover* covers, const T* grad_output,
                                      T* grad_input) {
  using acc_t = acc_type<T>;
  const int64_t channels = resize.channels;
  const int64_t items = resize.images * channels * resize.in_h * resize.in_w / kPack;
  const float row_ratio = interp_ratio(resize.in_h, resize.out_h);
  const float col_ratio = interp_ratio(resize.in_w, resize.out_w);
  for (int64_t item = global_thread(); item < items; item += all_threads()) {
    const Split channel = split(item, channels / kPack);
    const Split col = split(channel.quotient, resize.in_w);
    const Split row = split(col.quotient, resize.in_h);
    const Cover rows = covers[row.remainder], cols = covers[resize.in_h + col.remainder];
    const T* source = grad_output +
                      row.quotient * resize.out_h * resize.out_w * channels +
                      channel.remainder * kPack;
    acc_t sum[kPack] = {};
    for (int64_t y = rows.first; y < rows.last; ++y) {
      acc_t across[kPack] = {};
#pragma unroll 4
      for (int64_t x = cols.first; x < cols.last; ++x) {
        const acc_t weight = tap_weight<acc_t>(x, col.remainder, resize.in_w, col_ratio);
        acc_t grad[kPack];
        load_pack<kPack>(source + (y * resize.out_w + x) * channels, grad);
        for (int k = 0; k < kPack; ++k) across[k] += weight * grad[k];
      }
      const acc_t weight = tap_weight<acc_t>(y, row.remainder, resize.in_h, row_ratio);
      for (int k = 0; k < kPack; ++k) sum[k] += weight * across[k];
    }
    T* target = grad_input +
                (row.quotient * resize.image_pixels + resize.first_pixel +
                 row.remainder * resize.image_w + col.remainder) * channels +
                channel.remainder * kPack;
    store_pack<kPack>(sum, target);
  }
}

// Rows a block: enough blocks to fill a large card, enough rows to share what they read.
int rows_a_block(int64_t rows, int64_t planes) {
  int64_t height = rows;
  while (height > 16 && planes * ceil_div(rows, height) < 2048) height = ceil_div(height, 2);
  const int64_t least = ceil_div(rows, 65535);
  return static_cast<int>(height > least ? height : least);
}

dim3 grid_of_rows(const Resize& resize, int64_t rows, int height, int64_t tiles) {
  return dim3(static_cast<unsigned int>(resize.images * resize.channels),
              static_cast<unsigned int>(ceil_div(rows, height)),
              static_cast<unsigned int>(tiles));
}

}  // namespace

void launch_interp_covers(const Resize& resize, Cover* covers, Stream stream) {
  PSPNET_LAUNCH(cover_kernel, blocks_for(resize.in_h + resize.in_w), kThreads, 0, stream, resize,
                covers);
}

void launch_interp_forward(DType dtype, const Resize& resize, const void* input, void* output,
                           Stream stream) {
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
                    kThreads, 2 * width * sizeof(acc_type<T>), stream, resize, height, source,
                    target);
      return;
    }
    dispatch_packs<T>(packs_of_channels<T>(true, resize.channels, source, target),
                      [&](auto pack) {
      constexpr int kPack = decltype(pack)::value;
      const auto kernel = &pixel_forward_kernel<T, kPack>;
      PSPNET_LAUNCH(kernel,
                    blocks_for(resize.images * resize.channels * resize.out_h * resize.out_w /
                               kPack),
                    kThreads, 0, stream, resize, source, target);
    });
  });
}

void launch_interp_backward(DType dtype, const Resize& resize, const Cover* covers,
                            const void* grad_output, void* grad_input, Stream stream) {
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
                    resize, height, covers, source, target);
      return;
    }
    Resize as_pixels = resize;
    if (!resize.channels_last) {
      as_pixels.images *= as_pixels.channels;
      as_pixels.channels = 1;
    }
    dispatch_packs<T>(packs_of_channels<T>(resize.channels_last, resize.channels, source, target),
                      [&](auto pack) {
      constexpr int kPack = decltype(pack)::value;
      const auto kernel = &pixel_backward_kernel<T, kPack>;
      PSPNET_LAUNCH(kernel,
                    blocks_for(resize.images * resize.channels * resize.in_h * resize.in_w /
                               kPack),
                    kThreads, 0, stream, as_pixels, covers, source, target);
    });
  });
}

}  // namespace pspnet::cuda
