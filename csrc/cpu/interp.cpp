#include <ATen/Dispatch.h>
#include <ATen/Functions.h>
#include <torch/library.h>

#include <vector>

#include "../interp_rules.h"
#include "lanes.h"

namespace pspnet::cpu {
namespace {

// Where the outputs of one axis read, each kind of number in an array of its own; positions count
// from the start of the cropped input.
struct Axis {
  Axis(int64_t in_size, int64_t out_size) {
    const float ratio = interp_ratio(in_size, out_size);
    for (int64_t i = 0; i < out_size; ++i) {
      const InterpTap tap = interp_tap(i, in_size, ratio);
      if (i == 0 || i0.back() != tap.i0) {
        runs.push_back(i);
      }
      i0.push_back(static_cast<int32_t>(tap.i0));
      i1.push_back(static_cast<int32_t>(tap.i1));
      lambda1.push_back(tap.lambda1);
    }
    runs.push_back(out_size);
  }
  std::vector<int32_t> i0, i1;
  std::vector<float> lambda1;
  std::vector<int64_t> runs;  // starts of the runs of outputs that share i0, and the end
};

struct Resize {
  Resize(at::IntArrayRef in, at::IntArrayRef out, const InterpCrop& crop)
      : in_h(crop.left(in[0])), in_w(crop.left(in[1])), out_h(out[0]), out_w(out[1]),
        first_pixel(-crop.begin * in[1] - crop.begin), row_pixels(in[1]), rows(in_h, out_h),
        cols(in_w, out_w) {}
  int64_t in_h, in_w;          // after cropping
  int64_t out_h, out_w;
  int64_t first_pixel;         // of the crop, in the uncropped input
  int64_t row_pixels;          // of the uncropped input
  Axis rows, cols;
};

// target = (1 - lambda) * a + lambda * b along a row, lane by lane.
template <int64_t kWidth, typename acc_t>
void stretch_row(const acc_t* row, const Axis& axis, int64_t out_w, acc_t* __restrict target) {
  const int32_t* i0 = axis.i0.data();
  const int32_t* i1 = axis.i1.data();
  const float* lambda1 = axis.lambda1.data();
  for (int64_t x = 0; x < out_w; ++x) {
    const acc_t b = lambda1[x], a = acc_t(1) - b;
    for (int64_t l = 0; l < kWidth; ++l) {
      target[x * kWidth + l] = a * row[i0[x] * kWidth + l] + b * row[i1[x] * kWidth + l];
    }
  }
}

template <typename acc_t>
void blend_rows(const acc_t* upper, const acc_t* lower, acc_t lambda1, int64_t count,
                acc_t* __restrict target) {
  const acc_t lambda0 = acc_t(1) - lambda1;
  for (int64_t x = 0; x < count; ++x) {
    target[x] = lambda0 * upper[x] + lambda1 * lower[x];
  }
}

// Rows are stretched first and then blended: that is the order of the original's formula, and each
// input row need be stretched only once.
template <int64_t kWidth, typename scalar_t, typename acc_t>
void forward_slab(const scalar_t* input, const Layout& in_layout, const Resize& resize,
                  int64_t lanes, scalar_t* output, const Layout& out_layout) {
  const int64_t stretched = resize.out_w * kWidth;
  const auto row = make_buffer<acc_t>(resize.in_w * kWidth);
  Buffer<acc_t> upper = make_buffer<acc_t>(stretched);
  Buffer<acc_t> lower = make_buffer<acc_t>(stretched);
  const auto blend = make_buffer<acc_t>(stretched);
  int64_t upper_row = -1, lower_row = -1;
  const auto stretch = [&](int64_t y, acc_t* target) {
    load_lanes<kWidth>(
        input + (resize.first_pixel + y * resize.row_pixels) * in_layout.pixel_stride(),
        in_layout, lanes, resize.in_w, row.get());
    stretch_row<kWidth>(row.get(), resize.cols, resize.out_w, target);
  };
  for (int64_t y = 0; y < resize.out_h; ++y) {
    const int64_t i0 = resize.rows.i0[y], i1 = resize.rows.i1[y];
    if (i0 == lower_row) {
      std::swap(upper, lower);
      std::swap(upper_row, lower_row);
    }
    if (i0 != upper_row) {
      stretch(i0, upper.get());
      upper_row = i0;
    }
    if (i1 != i0 && i1 != lower_row) {
      stretch(i1, lower.get());
      lower_row = i1;
    }
    const acc_t* second = i1 == i0 ? upper.get() : lower.get();
    const acc_t lambda1 = resize.rows.lambda1[y];
    scalar_t* target = output + y * resize.out_w * out_layout.pixel_stride();
    if constexpr (kWidth == 1 && std::is_same_v<scalar_t, acc_t>) {
      blend_rows(upper.get(), second, lambda1, stretched, target);
    } else {
      blend_rows(upper.get(), second, lambda1, stretched, blend.get());
      store_lanes<kWidth>(blend.get(), out_layout, lanes, resize.out_w, target);
    }
  }
}

// Adds one row of output gradients to the two input rows it read, outputs in order. Where the four
// sums are distinct they stay in registers for as long as outputs share them.
template <typename acc_t>
void scatter_row(const Vec<acc_t>* grads, const Axis& cols, acc_t v1, Vec<acc_t>* upper,
                 Vec<acc_t>* lower) {
  const acc_t v0 = acc_t(1) - v1;
  for (size_t run = 0; run + 1 < cols.runs.size(); ++run) {
    const int64_t begin = cols.runs[run], end = cols.runs[run + 1];
    const int64_t i0 = cols.i0[begin], i1 = cols.i1[begin];
    if (i0 != i1 && upper != lower) {
      Vec<acc_t> sum00 = upper[i0], sum01 = upper[i1], sum10 = lower[i0], sum11 = lower[i1];
      for (int64_t x = begin; x < end; ++x) {
        const acc_t h1 = cols.lambda1[x], h0 = acc_t(1) - h1;
        sum00 += (v0 * h0) * grads[x];
        sum01 += (v0 * h1) * grads[x];
        sum10 += (v1 * h0) * grads[x];
        sum11 += (v1 * h1) * grads[x];
      }
      upper[i0] = sum00;
      upper[i1] = sum01;
      lower[i0] = sum10;
      lower[i1] = sum11;
      continue;
    }
    for (int64_t x = begin; x < end; ++x) {
      const acc_t h1 = cols.lambda1[x], h0 = acc_t(1) - h1;
      upper[i0] += (v0 * h0) * grads[x];
      upper[i1] += (v0 * h1) * grads[x];
      lower[i0] += (v1 * h0) * grads[x];
      lower[i1] += (v1 * h1) * grads[x];
    }
  }
}

// One channel a lane.
template <typename scalar_t, typename acc_t>
void backward_slab(const scalar_t* grad_output, const Layout& out_layout, const Resize& resize,
                   int64_t lanes, scalar_t* grad_input, const Layout& in_layout) {
  constexpr int64_t kWidth = Lanes<acc_t>::kCount;
  const int64_t pixels = resize.in_h * resize.in_w;
  const auto sums = make_buffer<acc_t>(pixels * kWidth);
  std::fill_n(sums.get(), pixels * kWidth, acc_t(0));
  const auto row = make_buffer<acc_t>(resize.out_w * kWidth);
  for (int64_t y = 0; y < resize.out_h; ++y) {
    load_lanes<kWidth>(grad_output + y * resize.out_w * out_layout.pixel_stride(), out_layout,
                       lanes, resize.out_w, row.get());
    scatter_row<acc_t>(vectors(row), resize.cols, resize.rows.lambda1[y],
                       vectors(sums) + resize.rows.i0[y] * resize.in_w,
                       vectors(sums) + resize.rows.i1[y] * resize.in_w);
  }
  for (int64_t y = 0; y < resize.in_h; ++y) {
    store_lanes<kWidth>(
        sums.get() + y * resize.in_w * kWidth, in_layout, lanes, resize.in_w,
        grad_input + (resize.first_pixel + y * resize.row_pixels) * in_layout.pixel_stride());
  }
}

struct Cpu {
  static void interp_forward(const at::Tensor& input, const InterpCrop& crop,
                             at::MemoryFormat format, const at::Tensor& output) {
    advise_huge_pages(output);
    const Resize resize(input.sizes().slice(2), output.sizes().slice(2), crop);
    AT_DISPATCH_FLOATING_TYPES_AND2(
        at::kHalf, at::kBFloat16, input.scalar_type(), "interp2d", [&] {
          using acc_t = at::opmath_type<scalar_t>;
          const Layout in_layout = layout_of(input, format);
          const Layout out_layout = layout_of(output, format);
          const auto slab = [&](auto width, int64_t image, int64_t channel, int64_t lanes) {
            forward_slab<decltype(width)::value, scalar_t, acc_t>(
                input.const_data_ptr<scalar_t>() + in_layout.offset(image, channel), in_layout,
                resize, lanes,
                output.mutable_data_ptr<scalar_t>() + out_layout.offset(image, channel),
                out_layout);
          };
          for_each_slab_of<acc_t>(format, input, slab);
        });
  }

  static void interp_backward(const at::Tensor& grad_output, const InterpCrop& crop,
                              at::MemoryFormat format, const at::Tensor& grad_input) {
    const Resize resize(grad_input.sizes().slice(2), grad_output.sizes().slice(2), crop);
    AT_DISPATCH_FLOATING_TYPES_AND2(
        at::kHalf, at::kBFloat16, grad_output.scalar_type(), "interp2d_backward", [&] {
          using acc_t = at::opmath_type<scalar_t>;
          const Layout in_layout = layout_of(grad_input, format);
          const Layout out_layout = layout_of(grad_output, format);
          for_each_slab<Lanes<acc_t>::kCount>(
              grad_output.size(0), grad_output.size(1),
              [&](int64_t image, int64_t channel, int64_t lanes) {
                backward_slab<scalar_t, acc_t>(
                    grad_output.const_data_ptr<scalar_t>() + out_layout.offset(image, channel),
                    out_layout, resize, lanes,
                    grad_input.mutable_data_ptr<scalar_t>() + in_layout.offset(image, channel),
                    in_layout);
              });
        });
  }
};

}  // namespace

TORCH_LIBRARY_IMPL(pspnet, CPU, m) { register_interp<Cpu>(m); }

}  // namespace pspnet::cpu
