#include <torch/library.h>

// tests/cuda_on_cpu has the same operators under another name.
#ifndef PSPNET_LIBRARY
#define PSPNET_LIBRARY pspnet
#endif
#define PSPNET_TORCH_LIBRARY(name, m) TORCH_LIBRARY(name, m)

PSPNET_TORCH_LIBRARY(PSPNET_LIBRARY, m) {
  // Pooling. The max operators also return, for each output, the index y * W + x of its source in
  // the input plane (-1: no element exceeds -FLT_MAX).
  m.def("window_avg_pool2d(Tensor input, SymInt[2] kernel_size, SymInt[2] stride, "
        "SymInt[2] padding) -> Tensor");
  m.def("window_avg_pool2d_backward(Tensor grad_output, SymInt[2] in_size, SymInt[2] kernel_size, "
        "SymInt[2] stride, SymInt[2] padding) -> Tensor");
  m.def("window_max_pool2d(Tensor input, SymInt[2] kernel_size, SymInt[2] stride, "
        "SymInt[2] padding) -> (Tensor, Tensor)");
  m.def("window_max_pool2d_backward(Tensor grad_output, Tensor indices, SymInt[2] in_size, "
        "SymInt[2] kernel_size, SymInt[2] stride, SymInt[2] padding) -> Tensor");
  m.def("pyramid_avg_pool2d(Tensor input, SymInt[] bins) -> Tensor[]");
  m.def("pyramid_avg_pool2d_backward(Tensor[] grad_outputs, SymInt[2] in_size, SymInt[] bins) "
        "-> Tensor");
  m.def("pyramid_max_pool2d(Tensor input, SymInt[] bins) -> (Tensor[], Tensor[])");
  m.def("pyramid_max_pool2d_backward(Tensor[] grad_outputs, Tensor[] indices, "
        "SymInt[2] in_size, SymInt[] bins) -> Tensor");

  m.def("interp2d(Tensor input, SymInt[2] out_size, SymInt pad_begin, SymInt pad_end) -> Tensor");
  m.def("interp2d_backward(Tensor grad_output, SymInt[2] in_size, SymInt pad_begin, "
        "SymInt pad_end) -> Tensor");

  // The steps of batch normalization, with the addition of `residual` and then the ReLU behind it
  // where they are asked for. Per-channel tensors are (C,), float64 for float64 input and float32
  // otherwise; sqdev is the sum of squared deviations from the mean. batch_norm_combine takes those
  // of several processes, (P, C), and changes the running values.
  m.def("batch_norm_statistics(Tensor input) -> (Tensor mean, Tensor sqdev)");
  m.def("batch_norm_normalize(Tensor input, Tensor mean, Tensor invstd, Tensor weight, "
        "Tensor bias, bool relu, Tensor? residual=None) -> Tensor");
  m.def("batch_norm_combine(Tensor means, Tensor sqdevs, Tensor? counts, SymInt count, float eps, "
        "bool unbiased, bool unbiased_running, float momentum, Tensor(a!) running_mean, "
        "Tensor(b!) running_var) -> (Tensor mean, Tensor invstd, Tensor count)");
  m.def("batch_norm_backward_residual(Tensor grad_output, Tensor input, Tensor residual, "
        "Tensor mean, Tensor invstd, Tensor weight, Tensor bias) "
        "-> (Tensor grad_residual, Tensor sum_dy, Tensor sum_dy_xhat)");
  m.def("batch_norm_backward_reduce(Tensor grad_output, Tensor input, Tensor mean, "
        "Tensor invstd, Tensor weight, Tensor bias, bool relu) "
        "-> (Tensor sum_dy, Tensor sum_dy_xhat)");
  m.def("batch_norm_backward_elementwise(Tensor grad_output, Tensor input, Tensor mean, "
        "Tensor invstd, Tensor weight, Tensor bias, Tensor mean_dy, Tensor mean_dy_xhat, "
        "bool relu) -> Tensor");

  // The original's solver, dense weights of float32 or float64: buffer = momentum * buffer + rate *
  // (grad_scale * grad + decay * param), param -= buffer.
  m.def("caffe_sgd(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] buffers, float grad_scale, "
        "float decay, float momentum, float rate) -> ()");

  // The arithmetic of the original's CPU program, float32 on the CPU only: matrix products, sums of
  // each row or column times alpha, y += alpha * x, and the C library's functions. Results start
  // from `sum`, or 0.
  m.def("original_gemm(Tensor a, Tensor b, Tensor? sum=None) -> Tensor");
  m.def("original_sum_rows(Tensor a, float alpha=1, Tensor? sum=None) -> Tensor");
  m.def("original_sum_columns(Tensor a, float alpha=1, Tensor? sum=None) -> Tensor");
  m.def("original_axpy(Tensor(y!) y, Tensor x, float alpha) -> ()");
  m.def("original_exp(Tensor input) -> Tensor");
  m.def("original_log(Tensor input) -> Tensor");
  m.def("original_pow(Tensor input, float exponent) -> Tensor");

  // Adds the class probabilities of a batch of windows to a canvas (classes, H, W).
  m.def("scores(Tensor(a!) canvas, Tensor logits, Tensor? mirrored, SymInt[] tops, "
        "SymInt[] lefts, SymInt[2] out_size) -> ()");

  // Around the products of Winograd's 3x3 convolution, CPU only: 6x6 pixels of each of `count`
  // tiles times a matrix from both sides, and its results back onto an image.
  m.def("winograd_tiles(Tensor input, Tensor matrix, SymInt dilation, SymInt first, SymInt count) "
        "-> Tensor");
  m.def("winograd_pixels(Tensor(a!) output, Tensor products, Tensor matrix, Tensor bias, "
        "SymInt dilation, SymInt first, bool add, bool relu) -> ()");
}
