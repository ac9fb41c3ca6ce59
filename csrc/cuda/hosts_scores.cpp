// From tensors to launchers: probabilities of windows.
#include <ATen/Functions.h>
#include <torch/library.h>

#include "../checks.h"
#include "../summed_logits.h"
#include "device.h"

namespace pspnet::cuda {
namespace {

void scores(const at::Tensor& canvas, const at::Tensor& logits,
            const std::optional<at::Tensor>& mirrored, at::IntArrayRef tops,
            at::IntArrayRef lefts, at::IntArrayRef out_size) {
  check_scores(canvas, logits, mirrored, tops, lefts, out_size);
  TORCH_CHECK(out_size[0] <= 65535, "out_size must have at most 65535 rows on CUDA, got ",
              out_size[0]);
  if (canvas.numel() == 0) return;
  const DeviceGuard guard(canvas.device());
  const Stream stream = current_stream();
  const at::Tensor sum = summed_logits(logits, mirrored);
  // Window after window, so that a pixel's sum has one order.
  for (int64_t n = 0; n < sum.size(0); ++n) {
    const AxisRange rows = window_on_canvas(tops[n], out_size[0], canvas.size(1));
    const AxisRange cols = window_on_canvas(lefts[n], out_size[1], canvas.size(2));
    if (rows.begin >= rows.end || cols.begin >= cols.end) continue;
    launch_scores({sum.const_data_ptr<float>() + n * sum.stride(0), sum.size(2), sum.size(3),
                   out_size[0], out_size[1], rows, cols, canvas.mutable_data_ptr<float>(),
                   canvas.size(0), canvas.size(1), canvas.size(2), tops[n], lefts[n]},
                  stream);
    PSPNET_CHECK_LAUNCH();
  }
}

}  // namespace

PSPNET_LIBRARY_IMPL(m) { m.impl("scores", &scores); }

}  // namespace pspnet::cuda
