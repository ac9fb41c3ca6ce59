// Class probabilities of a window, from its map of logits onto the canvas in one pass.
#include <cfloat>

#include "launch.h"

namespace pspnet::cuda {
namespace {

// A block takes one row of the window, a thread a pixel, class after class: the sum of exponentials
// first, then the shares. Where kStaged, the two rows of logits that the row lies between are
// blended in shared memory once for all its pixels.
template <bool kStaged>
__global__ void scores_kernel(ScoreWindow window) {
  constexpr int kClasses = kStaged ? 8 : 2;  // that a thread reads before it writes the first
  float* blended = shared_memory<float>();
  const int64_t y = window.rows.begin + blockIdx.y;
  const InterpTap rows = interp_tap(y, window.in_h, interp_ratio(window.in_h, window.out_h));
  const float down = rows.lambda1, up = 1.f - down;
  const int64_t plane = window.in_h * window.in_w;
  const float* upper = window.logits + rows.i0 * window.in_w;
  const float* lower = window.logits + rows.i1 * window.in_w;
  if constexpr (kStaged) {
    const int items = static_cast<int>(window.classes * window.in_w);
    const int width = static_cast<int>(window.in_w);
    for (int item = threadIdx.x; item < items; item += blockDim.x) {
      const int64_t at = item / width * plane + item % width;
      blended[item] = up * upper[at] + down * lower[at];
    }
    __syncthreads();
  }
  const int64_t x = window.cols.begin + global_thread();
  if (x >= window.cols.end) return;
  const InterpTap cols = interp_tap(x, window.in_w, interp_ratio(window.in_w, window.out_w));
  const float right = cols.lambda1, left = 1.f - right;
  const auto logit = [&](int64_t c) {
    if constexpr (kStaged) {
      const float* row = blended + c * window.in_w;
      return left * row[cols.i0] + right * row[cols.i1];
    } else {
      const int64_t at = c * plane;
      return left * (up * upper[at + cols.i0] + down * lower[at + cols.i0]) +
             right * (up * upper[at + cols.i1] + down * lower[at + cols.i1]);
    }
  };
  float largest = -FLT_MAX, sum = 0;
  for (int64_t first = 0; first < window.classes; first += kClasses) {
    float values[kClasses];
#pragma unroll
    for (int k = 0; k < kClasses; ++k) {
      if (first + k < window.classes) values[k] = logit(first + k);
    }
#pragma unroll
    for (int k = 0; k < kClasses; ++k) {
      if (first + k >= window.classes) break;
      if (values[k] > largest) {
        sum *= expf(largest - values[k]);
        largest = values[k];
      }
      sum += expf(values[k] - largest);
    }
  }
  const float inverse = 1.f / sum;
  const int64_t canvas_plane = window.canvas_h * window.canvas_w;
  float* target = window.canvas + (window.top + y) * window.canvas_w + window.left + x;
  for (int64_t first = 0; first < window.classes; first += kClasses) {
    float* sums = target + first * canvas_plane;
    float values[kClasses];
#pragma unroll
    for (int k = 0; k < kClasses; ++k) {
      if (first + k < window.classes) values[k] = sums[k * canvas_plane];
    }
#pragma unroll
    for (int k = 0; k < kClasses; ++k) {
      if (first + k < window.classes) values[k] += expf(logit(first + k) - largest) * inverse;
    }
#pragma unroll
    for (int k = 0; k < kClasses; ++k) {
      if (first + k < window.classes) sums[k * canvas_plane] = values[k];
    }
  }
}

}  // namespace

void launch_scores(const ScoreWindow& window, Stream stream) {
  const int64_t bytes = window.classes * window.in_w * static_cast<int64_t>(sizeof(float));
  const bool staged = bytes <= kSharedBytes;
  const dim3 grid(blocks_for(window.cols.end - window.cols.begin),
                  static_cast<unsigned int>(window.rows.end - window.rows.begin));
  const auto kernel = staged ? &scores_kernel<true> : &scores_kernel<false>;
  PSPNET_LAUNCH(kernel, grid, kThreads, staged ? bytes : 0, stream, window);
}

}  // namespace pspnet::cuda
