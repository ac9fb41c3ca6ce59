// What hosts.cpp calls: one function a kernel launch, raw pointers and a stream. Neither compiler
// needs the other's headers for it.
#pragma once

#include "../batch_norm_rules.h"
#include "../geometry.h"
#include "../sgd_rules.h"

struct CUstream_st;

namespace pspnet::cuda {

using Stream = CUstream_st*;

enum class DType { kFloat, kDouble, kHalf, kBFloat16 };

// A dense (N, C, H, W) tensor, planes or channels-last.
struct Image {
  int64_t images;
  int64_t channels;
  int64_t height;
  int64_t width;
  bool channels_last;
  PSPNET_HOST_DEVICE int64_t pixels() const { return height * width; }
};

// Outputs [first, last) of one axis that touch an input coordinate.
struct Cover {
  int32_t first;
  int32_t last;
};

constexpr int kMaxLevels = 16;

// One map of a pooling: `covers` has an entry a row and then one a column of the input.
struct Level {
  AxisRule rows;
  AxisRule cols;
  void* output;        // or its gradient
  int64_t* indices;    // of max pooling, else null
  const Cover* covers; // in backward passes
};

struct Levels {
  int count;
  Level at[kMaxLevels];
};

void launch_pool_covers(const Level& level, Cover* covers, Stream stream);
void launch_pool_forward(DType dtype, const Image& input, const void* data, const Level& level,
                         Stream stream);
void launch_pool_backward(DType dtype, const Image& input, const Levels& levels, void* grad_input,
                          Stream stream);

// The pyramid in one pass: an axis is cut wherever a bin of any level begins or ends, each cell of
// the resulting grid is reduced once, and every level is made of cells.
constexpr int kMaxCells = 64;
constexpr int kMaxCellRows = 8;
constexpr int kMaxCellLevels = 6;

struct Cells {
  int count;
  int32_t edges[kMaxCells + 1];
  PSPNET_HOST_DEVICE int32_t size() const { return edges[count]; }
};

// False where the levels need more cells, or more shared memory, than these kernels have.
bool make_cells(const Levels& levels, const Image& input, DType dtype, Cells* rows, Cells* cols);

// `values` and `indices` (max only) hold rows.count * cols.count numbers for each image and channel
// in the input's memory format, values in float (double for double).
void launch_pyramid_cells(DType dtype, bool max, const Image& input, const void* data,
                          const Cells& rows, const Cells& cols, void* values, int32_t* indices,
                          Stream stream);
void launch_pyramid_combine(DType dtype, bool max, const Image& input, const Levels& levels,
                            const Cells& rows, const Cells& cols, const void* values,
                            const int32_t* indices, Stream stream);
void launch_pyramid_backward(DType dtype, const Image& input, const Levels& levels,
                             const Cells& rows, const Cells& cols, void* grad_input,
                             Stream stream);

// The part of an image that interpolation reads, and the size that it makes of it.
struct Resize {
  int64_t in_h, in_w;    // after cropping
  int64_t out_h, out_w;
  int64_t first_pixel;   // of the crop, in the uncropped image
  int64_t image_w;       // of the uncropped image
  int64_t image_pixels;
  int64_t images, channels;
  bool channels_last;
};

void launch_interp_forward(DType dtype, const Resize& resize, const void* input, void* output,
                           Stream stream);
void launch_interp_covers(const Resize& resize, Cover* covers, Stream stream);
void launch_interp_backward(DType dtype, const Resize& resize, const Cover* covers,
                            const void* grad_output, void* grad_input, Stream stream);

// Per-channel arrays are float, double for double input. Reductions leave batch_norm_parts(input)
// partial results a channel, of kBatchNormPartial such numbers each, for their finishing kernel.
constexpr int kBatchNormPartial = 3;
int64_t batch_norm_parts(const Image& input);

void launch_batch_norm_statistics(DType dtype, const Image& input, const void* data,
                                  void* partials, Stream stream);
void launch_batch_norm_merge(DType dtype, const Image& input, const void* partials, void* mean,
                             void* sqdev, Stream stream);

struct BatchNorm {
  const void* mean;
  const void* invstd;
  const void* weight;
  const void* bias;
  bool relu;
};

// Arrays of float or double, as the two dtypes say.
void launch_batch_norm_combine(DType dtype, DType out_dtype, const BatchNormRule& rule,
                               const BatchNormArrays<void, void>& arrays, Stream stream);
// Without `residual`, null, nothing is added.
void launch_batch_norm_normalize(DType dtype, const Image& input, const void* data,
                                 const BatchNorm& norm, const void* residual, void* output,
                                 Stream stream);
void launch_batch_norm_backward_reduce(DType dtype, const Image& input, const void* grad_output,
                                       const void* data, const BatchNorm& norm,
                                       const void* residual, void* grad_residual, void* partials,
                                       Stream stream);
void launch_batch_norm_sum(DType dtype, const Image& input, const void* partials,
                           const BatchNorm& norm, void* sum_dy, void* sum_dy_xhat, Stream stream);
void launch_batch_norm_backward_elementwise(DType dtype, const Image& input,
                                            const void* grad_output, const void* data,
                                            const BatchNorm& norm, const void* mean_dy,
                                            const void* mean_dy_xhat, void* grad_input,
                                            Stream stream);

// Tensors of one launch; last[k] is the number of blocks up to tensor k, which the launch fills in.
constexpr int kSgdTensors = 64;
struct SgdTensors {
  int count;
  void* params[kSgdTensors];
  const void* grads[kSgdTensors];
  void* buffers[kSgdTensors];
  int64_t elements[kSgdTensors], last[kSgdTensors];
};

void launch_sgd(DType dtype, SgdTensors tensors, const SgdRule& rule, Stream stream);

// One window of `scores`: a float map of logits, and the canvas that its probabilities add to.
struct ScoreWindow {
  const float* logits;  // (classes, in_h, in_w)
  int64_t in_h, in_w, out_h, out_w;
  AxisRange rows, cols;  // of the window, that lie on the canvas
  float* canvas;         // (classes, canvas_h, canvas_w)
  int64_t classes, canvas_h, canvas_w, top, left;
};

void launch_scores(const ScoreWindow& window, Stream stream);

}  // namespace pspnet::cuda
