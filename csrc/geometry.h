// Index arithmetic of pooling, interpolation and windows, included by the C++ and the CUDA compiler
// alike, so that both devices visit the same pixels. Compile without contraction to fused
// multiply-add.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define PSPNET_HOST_DEVICE __host__ __device__
#else
#define PSPNET_HOST_DEVICE
#endif

namespace pspnet {

// Pixels [begin, end) of one axis that an output covers, and the extent that an average divides by.
struct AxisRange {
  int64_t begin;
  int64_t end;
  int64_t extent;
};

// Rounds up, whatever the sign of the numerator.
PSPNET_HOST_DEVICE inline int64_t ceil_div(int64_t numerator, int64_t denominator) {
  const int64_t quotient = numerator / denominator;
  return quotient + (numerator % denominator > 0 ? 1 : 0);
}

// `padded`: any axis of the window has a nonzero padding; only then does the original drop a last
// window that would start in the padding behind the image.
PSPNET_HOST_DEVICE inline int64_t window_output_size(
    int64_t size, int64_t kernel, int64_t stride, int64_t padding, bool padded) {
  int64_t out = ceil_div(size + 2 * padding - kernel, stride) + 1;
  if (padded && (out - 1) * stride >= size + padding) {
    --out;
  }
  return out;
}

// The extent counts the padding on both sides, but not what a ceiling adds beyond it.
PSPNET_HOST_DEVICE inline AxisRange window_range(
    int64_t i, int64_t size, int64_t kernel, int64_t stride, int64_t padding) {
  const int64_t begin = i * stride - padding;
  const int64_t end = begin + kernel < size + padding ? begin + kernel : size + padding;
  return {begin > 0 ? begin : 0, end < size ? end : size, end - begin};
}

PSPNET_HOST_DEVICE inline AxisRange bin_range(int64_t i, int64_t size, int64_t bins) {
  const int64_t begin = i * size / bins;
  const int64_t end = ceil_div((i + 1) * size, bins);
  return {begin, end, end - begin};
}

// The rule of one axis of a window (kernel > 0) or of a level of bins (kernel == 0).
struct AxisRule {
  int64_t size;
  int64_t outputs;
  int64_t kernel;
  int64_t stride;
  int64_t padding;
  PSPNET_HOST_DEVICE AxisRange range(int64_t i) const {
    return kernel > 0 ? window_range(i, size, kernel, stride, padding)
                      : bin_range(i, size, outputs);
  }
};

// One output pixel of an axis reads input pixels i0 and i1, the latter with weight lambda1.
template <typename Index>
struct InterpTapOf {
  Index i0;
  Index i1;
  float lambda1;
};
using InterpTap = InterpTapOf<int64_t>;

PSPNET_HOST_DEVICE inline float interp_ratio(int64_t in_size, int64_t out_size) {
  return out_size > 1 ? static_cast<float>(in_size - 1) / static_cast<float>(out_size - 1) : 0.f;
}

// The position is a float32 for every dtype of the data, as in the original.
template <typename Index>
PSPNET_HOST_DEVICE inline InterpTapOf<Index> interp_tap(Index i, Index in_size, float ratio) {
  const float position = ratio * static_cast<float>(i);
  Index i0 = static_cast<Index>(position);
  if (i0 > in_size - 1) i0 = in_size - 1;  // rounding of the largest sizes
  const Index i1 = i0 < in_size - 1 ? i0 + 1 : i0;
  return {i0, i1, position - static_cast<float>(i0)};
}

// The rows or columns [begin, end) of a window at `start` that lie on a canvas; none where
// begin >= end.
PSPNET_HOST_DEVICE inline AxisRange window_on_canvas(int64_t start, int64_t window,
                                                     int64_t canvas) {
  const int64_t begin = start < 0 ? -start : 0;
  const int64_t end = start + window <= canvas ? window : canvas - start;
  return {begin, end, end - begin};
}

}  // namespace pspnet
