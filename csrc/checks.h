// Argument checks shared by the hosts of every device. Each message names the argument, its value
// and the rule; pspnet_repro/ops.py says the same of fake tensors.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <optional>

#include "geometry.h"

namespace pspnet {

// Beyond this a window rule is a mistake, and its arithmetic could overflow.
constexpr int64_t kMaxKernel = int64_t{1} << 20;
// float32 positions count pixels exactly up to here.
constexpr int64_t kMaxInterpSize = int64_t{1} << 24;

inline void check_image(const at::Tensor& tensor, const char* name) {
  TORCH_CHECK(tensor.dim() == 4, name, " must be 4-D (N, C, H, W), got ", tensor.dim(), "-D");
  TORCH_CHECK(at::isFloatingType(tensor.scalar_type()), name,
              " must be float16, bfloat16, float32 or float64, got ", tensor.scalar_type());
  TORCH_CHECK(tensor.size(2) > 0 && tensor.size(3) > 0, name,
              " must have at least one pixel, got H, W = ", tensor.size(2), ", ", tensor.size(3));
}

inline void check_pair(at::IntArrayRef value, const char* name, int64_t least) {
  TORCH_CHECK(value.size() == 2, name, " must be 2 numbers (rows, columns), got ", value.size());
  TORCH_CHECK(value[0] >= least && value[1] >= least, name, " must be at least ", least, ", got ",
              value[0], ", ", value[1]);
}

inline void check_window(at::IntArrayRef size, at::IntArrayRef kernel, at::IntArrayRef stride,
                         at::IntArrayRef padding) {
  check_pair(kernel, "kernel_size", 1);
  check_pair(stride, "stride", 1);
  check_pair(padding, "padding", 0);
  TORCH_CHECK(kernel[0] <= kMaxKernel && kernel[1] <= kMaxKernel, "kernel_size must be at most ",
              kMaxKernel, ", got ", kernel[0], ", ", kernel[1]);
  const bool padded = padding[0] != 0 || padding[1] != 0;
  for (int axis = 0; axis < 2; ++axis) {
    const char* sides[2] = {"height", "width"};
    TORCH_CHECK(padding[axis] < kernel[axis], "padding must be less than kernel_size ",
                kernel[axis], ", got ", padding[axis]);
    const int64_t out = window_output_size(size[axis], kernel[axis], stride[axis], padding[axis],
                                           padded);
    TORCH_CHECK(out > 0, "kernel_size must give at least one window over the input's ",
                sides[axis], " ", size[axis], ", got ", kernel[axis]);
    const AxisRange last = window_range(out - 1, size[axis], kernel[axis], stride[axis],
                                        padding[axis]);
    TORCH_CHECK(last.begin < last.end, "stride must leave no window outside the input's ",
                sides[axis], " ", size[axis], ", got ", stride[axis], " with kernel_size ",
                kernel[axis]);
  }
}

inline void check_bins(at::IntArrayRef bins, int64_t in_h, int64_t in_w) {
  TORCH_CHECK(!bins.empty(), "bins must name at least one level, got none");
  for (const int64_t b : bins) {
    TORCH_CHECK(b >= 1, "bins must be at least 1, got ", b);
    TORCH_CHECK(b <= in_h, "bins must be at most the input's height ", in_h, ", got ", b);
    TORCH_CHECK(b <= in_w, "bins must be at most the input's width ", in_w, ", got ", b);
  }
}

inline void check_interp(at::IntArrayRef in_size, at::IntArrayRef out_size, int64_t pad_begin,
                         int64_t pad_end) {
  check_pair(out_size, "out_size", 1);
  TORCH_CHECK(pad_begin <= 0, "pad_begin must be at most 0 (it crops), got ", pad_begin);
  TORCH_CHECK(pad_end <= 0, "pad_end must be at most 0 (it crops), got ", pad_end);
  for (int axis = 0; axis < 2; ++axis) {
    const char* side = axis == 0 ? "height " : "width ";
    TORCH_CHECK(in_size[axis] <= kMaxInterpSize && out_size[axis] <= kMaxInterpSize,
                "input and out_size must be at most ", kMaxInterpSize, " pixels a side, got ",
                side, in_size[axis], " and ", out_size[axis]);
    // One by one first: their sum could overflow.
    TORCH_CHECK(pad_begin > -in_size[axis] && pad_end > -in_size[axis] &&
                    in_size[axis] + pad_begin + pad_end > 0,
                "pad_begin ", pad_begin, " and pad_end ", pad_end,
                " must leave a pixel of the input's ", side, in_size[axis]);
  }
}

inline void check_same(const at::Tensor& tensor, const char* name, at::IntArrayRef sizes,
                       const at::Tensor& like) {
  TORCH_CHECK(tensor.sizes() == sizes, name, " must have shape ", sizes, ", got ",
              tensor.sizes());
  TORCH_CHECK(tensor.device() == like.device(), name, " must be on ", like.device(), ", got ",
              tensor.device());
}

inline void check_same_dtype(const at::Tensor& tensor, const char* name, const at::Tensor& like) {
  TORCH_CHECK(tensor.scalar_type() == like.scalar_type(), name, " must be ", like.scalar_type(),
              ", got ", tensor.scalar_type());
}

inline void check_scores(const at::Tensor& canvas, const at::Tensor& logits,
                         const std::optional<at::Tensor>& mirrored, at::IntArrayRef tops,
                         at::IntArrayRef lefts, at::IntArrayRef out_size) {
  check_image(logits, "logits");
  check_interp(logits.sizes().slice(2), out_size, 0, 0);
  TORCH_CHECK(canvas.dim() == 3 && canvas.size(0) == logits.size(1),
              "canvas must be (classes, H, W) with the logits' ", logits.size(1),
              " classes, got shape ", canvas.sizes());
  TORCH_CHECK(canvas.scalar_type() == at::kFloat && canvas.is_contiguous(),
              "canvas must be float32 and contiguous, got ", canvas.scalar_type(), ", strides ",
              canvas.strides());
  TORCH_CHECK(canvas.device() == logits.device(), "canvas must be on ", logits.device(), ", got ",
              canvas.device());
  if (mirrored.has_value()) {
    check_same(*mirrored, "mirrored", logits.sizes(), logits);
    check_same_dtype(*mirrored, "mirrored", logits);
  }
  const auto windows = static_cast<size_t>(logits.size(0));
  TORCH_CHECK(tops.size() == windows && lefts.size() == windows,
              "tops and lefts must have a number for each of the ", windows, " windows, got ",
              tops.size(), " and ", lefts.size());
  for (const auto starts : {tops, lefts}) {
    for (const int64_t start : starts) {
      TORCH_CHECK(start >= -kMaxInterpSize && start <= kMaxInterpSize,
                  "tops and lefts must be within +-", kMaxInterpSize, " pixels, got ", start);
    }
  }
}

// What sums and per-channel numbers of BN are kept in.
inline at::ScalarType accumulate_type(const at::Tensor& input) {
  return input.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

inline at::Tensor per_channel(const at::Tensor& tensor, const char* name,
                              const at::Tensor& input) {
  check_same(tensor, name, {input.size(1)}, input);
  TORCH_CHECK(tensor.scalar_type() == accumulate_type(input), name, " must be ",
              accumulate_type(input), " for ", input.scalar_type(), " input, got ",
              tensor.scalar_type());
  return tensor.contiguous();
}

}  // namespace pspnet
