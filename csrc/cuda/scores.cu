// Class probabilities of a window, from its map of logits onto the canvas in one pass.
#include <cfloat>

#include "launch.h"

namespace pspnet::cuda {
namespace {

// A block takes one row of the window, a thread a pixel, class after class: the sum of exponentials
// first, then the shares. Where `staged`, the two rows of logits that the row lies between are
// blended in shared memory once for all its pixels.
__global__ void scores_kernel(ScoreWindow window, bool staged) {
  float* blended = shared_memory<float>();
  const int64_t y = window.rows.begin + blockIdx.y;
  const InterpTap rows = interp_tap(y, window.in_h, interp_ratio(window.in_h, window.out_h));
  const float down = rows.lambda1, up = 1.f - down;
  const int64_t plane = window.in_h * window.in_w;
  const float* upper = window.logits + rows.i0 * window.in_w;
  const float* lower = window.logits + rows.i1 * window.in_w;
  if (staged) {
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
    if (staged) {
      const float* row = blended + c * window.in_w;
      return left * row[cols.i0] + right * row[cols.i1];
    }
    const int64_t at = c * plane;
    return left * (up * upper[at + cols.i0] + down * lower[at + cols.i0]) +
           right * (up * upper[at + cols.i1] + down * lower[at + cols.i1]);
  };
  float largest = -FLT_MAX, sum = 0;
#pragma unroll 4
  for (int64_t c = 0; c < window.classes; ++c) {
    const float value = logit(c);
    if (value > largest) {
      sum *= expf(largest - value);
      largest = value;
    }
    sum += expf(value - largest);
  }
  const float inverse = 1.f / sum;
  const int64_t canvas_plane = window.canvas_h * window.canvas_w;
  float* target = window.canvas + (window.top + y) * window.canvas_w + window.left + x;
#pragma unroll 4
  for (int64_t c = 0; c < window.classes; ++c) {
    target[c * canvas_plane] += expf(logit(c) - largest) * inverse;
  }
}

}  // namespace

void launch_scores(const ScoreWindow& window, Stream stream) {
  const int64_t bytes = window.classes * window.in_w * static_cast<int64_t>(sizeof(float));
  const bool staged = bytes <= kSharedBytes;
  const dim3 grid(blocks_for(window.cols.end - window.cols.begin),
                  static_cast<unsigned int>(window.rows.end - window.rows.begin));
  PSPNET_LAUNCH(scores_kernel, grid, kThreads, staged ? bytes : 0, stream, window, staged);
}

}  // namespace pspnet::cuda
