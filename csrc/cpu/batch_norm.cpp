// Hosts of the local steps of batch normalization.
#include <ATen/Dispatch.h>
#include <ATen/Functions.h>
#include <torch/library.h>

#include <tuple>

#include "../checks.h"
#include "batch_norm_loops.h"

namespace pspnet::cpu {
namespace {

at::ScalarType accumulate_type(const at::Tensor& input) {
  return input.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

at::Tensor per_channel(const at::Tensor& tensor, const char* name, const at::Tensor& input) {
  check_same(tensor, name, {input.size(1)}, input);
  TORCH_CHECK(tensor.scalar_type() == accumulate_type(input), name, " must be ",
              accumulate_type(input), " for ", input.scalar_type(), " input, got ",
              tensor.scalar_type());
  return tensor.contiguous();
}

at::Tensor empty_per_channel(const at::Tensor& input) {
  return at::empty({input.size(1)}, input.options().dtype(accumulate_type(input)));
}

std::tuple<at::Tensor, at::Tensor> statistics(const at::Tensor& input_) {
  check_image(input_, "input");
  const auto format = input_.suggest_memory_format();
  const at::Tensor input = input_.contiguous(format);
  at::Tensor mean = empty_per_channel(input), sqdev = empty_per_channel(input);
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, input.scalar_type(), "batch_norm_statistics", [&] {
        using acc_t = at::opmath_type<scalar_t>;
        const Layout layout = layout_of(input, format);
        const scalar_t* x = input.const_data_ptr<scalar_t>();
        acc_t* m = mean.mutable_data_ptr<acc_t>();
        acc_t* s = sqdev.mutable_data_ptr<acc_t>();
        if (layout.channels_last) {
          int64_t count = 0;
          mean.zero_();
          sqdev.zero_();
          reduce_pixels<acc_t>(
              input.size(0) * layout.pixels, layout.channels,
              [&](int64_t begin, int64_t end, acc_t* chunk_mean, acc_t* chunk_sqdev) {
                pixel_statistics<scalar_t, acc_t>(x, layout.channels, begin, end, chunk_mean,
                                                  chunk_sqdev);
              },
              [&](int64_t size, const acc_t* chunk_mean, const acc_t* chunk_sqdev) {
                const double merged = static_cast<double>(count + size);
                for (int64_t c = 0; c < layout.channels; ++c) {
                  const acc_t delta = chunk_mean[c] - m[c];
                  m[c] += delta * static_cast<acc_t>(size / merged);
                  s[c] += chunk_sqdev[c] +
                          delta * delta * static_cast<acc_t>(count * (size / merged));
                }
                count += size;
              });
        } else {
          for_each_slab<1>(1, layout.channels, [&](int64_t, int64_t c, int64_t) {
            plane_statistics<scalar_t, acc_t>(x, input.size(0), layout.channels, layout.pixels, c,
                                              m + c, s + c);
          });
        }
      });
  return {mean, sqdev};
}

at::Tensor normalize(const at::Tensor& input_, const at::Tensor& mean_, const at::Tensor& invstd_,
                     const at::Tensor& weight_, const at::Tensor& bias_) {
  check_image(input_, "input");
  const auto format = input_.suggest_memory_format();
  const at::Tensor input = input_.contiguous(format);
  const at::Tensor mean = per_channel(mean_, "mean", input);
  const at::Tensor scale =
      at::mul(per_channel(invstd_, "invstd", input), per_channel(weight_, "weight", input));
  const at::Tensor bias = per_channel(bias_, "bias", input);
  at::Tensor output = at::empty_like(input, input.options(), format);
  advise_huge_pages(output);
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, input.scalar_type(), "batch_norm_normalize", [&] {
        using acc_t = at::opmath_type<scalar_t>;
        const scalar_t* x = input.const_data_ptr<scalar_t>();
        scalar_t* y = output.mutable_data_ptr<scalar_t>();
        for_each_vector<acc_t>(
            input, format,
            [=](int64_t i, auto lanes, Vec<acc_t> m, Vec<acc_t> w, Vec<acc_t> b) {
              store<acc_t>((load<acc_t>(x + i, lanes) - m) * w + b, y + i, lanes);
            },
            mean.const_data_ptr<acc_t>(), scale.const_data_ptr<acc_t>(),
            bias.const_data_ptr<acc_t>());
      });
  return output;
}

std::tuple<at::Tensor, at::Tensor> backward_reduce(const at::Tensor& grad_output_,
                                                   const at::Tensor& input_,
                                                   const at::Tensor& mean_,
                                                   const at::Tensor& invstd_) {
  check_image(input_, "input");
  check_same(grad_output_, "grad_output", input_.sizes(), input_);
  check_same_dtype(grad_output_, "grad_output", input_);
  const auto format = input_.suggest_memory_format();
  const at::Tensor input = input_.contiguous(format);
  const at::Tensor grad_output = grad_output_.contiguous(format);
  const at::Tensor mean = per_channel(mean_, "mean", input);
  const at::Tensor invstd = per_channel(invstd_, "invstd", input);
  at::Tensor sum_dy = empty_per_channel(input), sum_dy_xhat = empty_per_channel(input);
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, input.scalar_type(), "batch_norm_backward_reduce", [&] {
        using acc_t = at::opmath_type<scalar_t>;
        const Layout layout = layout_of(input, format);
        const scalar_t* x = input.const_data_ptr<scalar_t>();
        const scalar_t* g = grad_output.const_data_ptr<scalar_t>();
        const acc_t* m = mean.const_data_ptr<acc_t>();
        const acc_t* s = invstd.const_data_ptr<acc_t>();
        acc_t* dy = sum_dy.mutable_data_ptr<acc_t>();
        acc_t* dyx = sum_dy_xhat.mutable_data_ptr<acc_t>();
        if (layout.channels_last) {
          sum_dy.zero_();
          sum_dy_xhat.zero_();
          reduce_pixels<acc_t>(
              input.size(0) * layout.pixels, layout.channels,
              [&](int64_t begin, int64_t end, acc_t* chunk_dy, acc_t* chunk_dy_x) {
                pixel_backward_reduce<scalar_t, acc_t>(g, x, layout.channels, begin, end, m,
                                                       chunk_dy, chunk_dy_x);
              },
              [&](int64_t, const acc_t* chunk_dy, const acc_t* chunk_dy_x) {
                for (int64_t c = 0; c < layout.channels; ++c) {
                  dy[c] += chunk_dy[c];
                  dyx[c] += chunk_dy_x[c] * s[c];
                }
              });
        } else {
          for_each_slab<1>(1, layout.channels, [&](int64_t, int64_t c, int64_t) {
            plane_backward_reduce<scalar_t, acc_t>(g, x, input.size(0), layout.channels,
                                                   layout.pixels, c, m[c], s[c], dy + c, dyx + c);
          });
        }
      });
  return {sum_dy, sum_dy_xhat};
}

at::Tensor backward_elementwise(const at::Tensor& grad_output_, const at::Tensor& input_,
                                const at::Tensor& mean_, const at::Tensor& invstd_,
                                const at::Tensor& weight_, const at::Tensor& mean_dy_,
                                const at::Tensor& mean_dy_xhat_) {
  check_image(input_, "input");
  check_same(grad_output_, "grad_output", input_.sizes(), input_);
  check_same_dtype(grad_output_, "grad_output", input_);
  const auto format = input_.suggest_memory_format();
  const at::Tensor input = input_.contiguous(format);
  const at::Tensor grad_output = grad_output_.contiguous(format);
  const at::Tensor mean = per_channel(mean_, "mean", input);
  const at::Tensor invstd = per_channel(invstd_, "invstd", input);
  const at::Tensor scale = at::mul(invstd, per_channel(weight_, "weight", input));
  const at::Tensor mean_dy = per_channel(mean_dy_, "mean_dy", input);
  const at::Tensor slope =
      at::mul(invstd, per_channel(mean_dy_xhat_, "mean_dy_xhat", input));
  at::Tensor grad_input = at::empty_like(input, input.options(), format);
  advise_huge_pages(grad_input);
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, input.scalar_type(), "batch_norm_backward_elementwise", [&] {
        using acc_t = at::opmath_type<scalar_t>;
        const scalar_t* x = input.const_data_ptr<scalar_t>();
        const scalar_t* g = grad_output.const_data_ptr<scalar_t>();
        scalar_t* dx = grad_input.mutable_data_ptr<scalar_t>();
        for_each_vector<acc_t>(
            input, format,
            [=](int64_t i, auto lanes, Vec<acc_t> m, Vec<acc_t> w, Vec<acc_t> offset,
                Vec<acc_t> xhat_slope) {
              const Vec<acc_t> d = load<acc_t>(g + i, lanes) - offset;
              store<acc_t>((d - (load<acc_t>(x + i, lanes) - m) * xhat_slope) * w, dx + i, lanes);
            },
            mean.const_data_ptr<acc_t>(), scale.const_data_ptr<acc_t>(),
            mean_dy.const_data_ptr<acc_t>(), slope.const_data_ptr<acc_t>());
      });
  return grad_input;
}

}  // namespace

TORCH_LIBRARY_IMPL(pspnet, CPU, m) {
  m.impl("batch_norm_statistics", &statistics);
  m.impl("batch_norm_normalize", &normalize);
  m.impl("batch_norm_backward_reduce", &backward_reduce);
  m.impl("batch_norm_backward_elementwise", &backward_elementwise);
}

}  // namespace pspnet::cpu
