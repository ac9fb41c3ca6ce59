#include <ATen/Functions.h>
#include <torch/library.h>

#include <limits>
#include <vector>

#include "../checks.h"
#include "../summed_logits.h"
#include "lanes.h"
#include "vector_exp.h"

namespace pspnet::cpu {
namespace {

typedef Vec<float> Pixels;
constexpr int64_t kPixels = Lanes<float>::kCount;
// Vectors of neighbouring pixels that are worked on together: whole cache lines of every class.
constexpr int64_t kVectors = 8;

// What a vector of output pixels reads of a row of logits: columns [first, first + count), each
// with a weight a lane.
struct Hat {
  int64_t first, count;
  Buffer<float> weights;
};

// Hats of the output columns [begin, end) of a window; the last one's surplus lanes have weight 0.
std::vector<Hat> column_hats(int64_t begin, int64_t end, int64_t in_w, int64_t out_w) {
  const float ratio = interp_ratio(in_w, out_w);
  std::vector<Hat> hats;
  for (int64_t x = begin; x < end; x += kPixels) {
    const int64_t stop = std::min(x + kPixels, end);
    const int64_t first = interp_tap(x, in_w, ratio).i0;
    const int64_t count = interp_tap(stop - 1, in_w, ratio).i1 - first + 1;
    Hat hat{first, count, make_buffer<float>(count * kPixels)};
    std::fill_n(hat.weights.get(), count * kPixels, 0.f);
    for (int64_t lane = 0; lane < stop - x; ++lane) {
      const InterpTap tap = interp_tap(x + lane, in_w, ratio);
      hat.weights[(tap.i0 - first) * kPixels + lane] += 1.f - tap.lambda1;
      hat.weights[(tap.i1 - first) * kPixels + lane] += tap.lambda1;
    }
    hats.push_back(std::move(hat));
  }
  return hats;
}

struct Window {
  const float* logits;  // (classes, in_h, in_w)
  int64_t in_h, in_w, out_h, top, left;
  AxisRange rows, cols;  // of the window, that lie on the canvas
  std::vector<Hat> hats;
};

struct Canvas {
  float* data;  // (classes, height, width)
  int64_t classes, height, width;
};

// row[c * in_w + i]: the logits between two rows of the map. Rows are blended before columns
// because there are eight times fewer pixels to blend; the original's order differs in rounding.
void blend_logits(const Window& window, int64_t y, int64_t classes, float* row) {
  const InterpTap tap = interp_tap(y, window.in_h, interp_ratio(window.in_h, window.out_h));
  const float lambda1 = tap.lambda1, lambda0 = 1.f - lambda1;
  for (int64_t c = 0; c < classes; ++c) {
    const float* plane = window.logits + c * window.in_h * window.in_w;
    const float* upper = plane + tap.i0 * window.in_w;
    const float* lower = plane + tap.i1 * window.in_w;
    float* __restrict target = row + c * window.in_w;
    for (int64_t i = 0; i < window.in_w; ++i) {
      target[i] = lambda0 * upper[i] + lambda1 * lower[i];
    }
  }
}

// values[c * kStep] = the interpolated logits of one vector of pixels; returns their maximum.
template <int64_t kStep>
Pixels stretch(const float* row, int64_t in_w, int64_t classes, const Hat& hat, Pixels* values) {
  Pixels largest = Pixels{} - std::numeric_limits<float>::infinity();
  const Pixels* weights = vectors(hat.weights);
  for (int64_t c = 0; c < classes; ++c) {
    const float* from = row + c * in_w + hat.first;
    Pixels value = weights[0] * from[0];
    for (int64_t k = 1; k < hat.count; ++k) {
      value += weights[k] * from[k];
    }
    values[c * kStep] = value;
    largest = value > largest ? value : largest;
  }
  return largest;
}

// Adds the probabilities of row y of the window to the canvas.
void add_row(const Window& window, int64_t y, const Canvas& canvas, const float* row,
             Pixels* values) {
  float* target = canvas.data + (window.top + y) * canvas.width + window.left;
  const int64_t count = window.hats.size();
  for (int64_t hat = 0; hat < count; hat += kVectors) {
    const int64_t vectors = std::min(kVectors, count - hat);
    Pixels inverse[kVectors];
    for (int64_t v = 0; v < vectors; ++v) {
      const Pixels largest = stretch<kVectors>(row, window.in_w, canvas.classes,
                                               window.hats[hat + v], values + v);
      Pixels sum = {};
      for (int64_t c = 0; c < canvas.classes; ++c) {
        Pixels& value = values[c * kVectors + v];
        value = exp_not_positive(value - largest);
        sum += value;
      }
      inverse[v] = 1.f / sum;
    }
    const int64_t x = window.cols.begin + hat * kPixels;
    const int64_t pixels = std::min(vectors * kPixels, window.cols.end - x);
    for (int64_t c = 0; c < canvas.classes; ++c) {
      float* plane = target + c * canvas.height * canvas.width + x;
      for (int64_t v = 0; v < vectors; ++v) {
        const Pixels share = values[c * kVectors + v] * inverse[v];
        const int64_t lanes = std::min(kPixels, pixels - v * kPixels);
        if (lanes == kPixels) {
          Pixels sum;
          std::memcpy(&sum, plane + v * kPixels, sizeof(sum));
          sum += share;
          std::memcpy(plane + v * kPixels, &sum, sizeof(sum));
          continue;
        }
        for (int64_t lane = 0; lane < lanes; ++lane) {
          plane[v * kPixels + lane] += share[lane];
        }
      }
    }
  }
}

void scores(const at::Tensor& canvas, const at::Tensor& logits,
            const std::optional<at::Tensor>& mirrored, at::IntArrayRef tops,
            at::IntArrayRef lefts, at::IntArrayRef out_size) {
  check_scores(canvas, logits, mirrored, tops, lefts, out_size);
  const at::Tensor sum = summed_logits(logits, mirrored);
  const Canvas target{canvas.mutable_data_ptr<float>(), canvas.size(0), canvas.size(1),
                      canvas.size(2)};
  for (int64_t n = 0; n < sum.size(0); ++n) {
    const AxisRange rows = window_on_canvas(tops[n], out_size[0], target.height);
    const AxisRange cols = window_on_canvas(lefts[n], out_size[1], target.width);
    const Window window{
        sum.const_data_ptr<float>() + n * sum.stride(0), sum.size(2), sum.size(3), out_size[0],
        tops[n], lefts[n], rows, cols,
        column_hats(cols.begin, cols.end, sum.size(3), out_size[1])};
    // Window after window, so that a pixel's sum has one order whatever the threads.
    at::parallel_for(rows.begin, rows.end, 1, [&](int64_t begin, int64_t end) {
      const auto row = make_buffer<float>(target.classes * window.in_w);
      const auto values = make_buffer<float>(target.classes * kVectors * kPixels);
      for (int64_t y = begin; y < end; ++y) {
        blend_logits(window, y, target.classes, row.get());
        add_row(window, y, target, row.get(), vectors(values));
      }
    });
  }
}

}  // namespace

TORCH_LIBRARY_IMPL(pspnet, CPU, m) {
  m.impl("scores", &scores);
}

}  // namespace pspnet::cpu
