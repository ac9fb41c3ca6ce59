// Hosts of the local steps of batch normalization.
#include <ATen/Dispatch.h>
#include <ATen/Functions.h>
#include <torch/library.h>

#include <tuple>
#include <type_traits>

#include "../batch_norm_inputs.h"
#include "batch_norm_loops.h"

namespace pspnet::cpu {
namespace {

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
          std::fill_n(m, layout.channels, acc_t(0));
          std::fill_n(s, layout.channels, acc_t(0));
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

template <typename acc_t>
Buffer<acc_t> products(const at::Tensor& a, const at::Tensor& b) {
  Buffer<acc_t> result = make_buffer<acc_t>(a.numel());
  const acc_t* x = a.const_data_ptr<acc_t>();
  const acc_t* y = b.const_data_ptr<acc_t>();
  for (int64_t c = 0; c < a.numel(); ++c) {
    result[c] = x[c] * y[c];
  }
  return result;
}

// What loops read of the per-channel tensors, with the products that they share.
template <typename acc_t>
struct NormArrays {
  explicit NormArrays(const BatchNormInput& t)
      : scale(products<acc_t>(t.invstd, t.weight)),
        norm{t.mean.const_data_ptr<acc_t>(), t.invstd.const_data_ptr<acc_t>(), scale.get(),
             t.bias.const_data_ptr<acc_t>()} {}
  Buffer<acc_t> scale;
  Norm<acc_t> norm;
};

// body(true or false as a constant), for loops that the compiler makes apart.
template <typename Body>
void with_constant(bool value, const Body& body) {
  if (value) {
    body(std::true_type());
  } else {
    body(std::false_type());
  }
}

at::Tensor normalize(const at::Tensor& input, const at::Tensor& mean, const at::Tensor& invstd,
                     const at::Tensor& weight, const at::Tensor& bias, bool relu,
                     const std::optional<at::Tensor>& residual) {
  const BatchNormInput in(input, mean, invstd, weight, bias);
  const at::Tensor added = residual.has_value() ? in.added(*residual) : at::Tensor();
  at::Tensor output = in.empty_like_input();
  advise_huge_pages(output);
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, in.input.scalar_type(), "batch_norm_normalize", [&] {
        using acc_t = at::opmath_type<scalar_t>;
        const scalar_t* x = in.input.const_data_ptr<scalar_t>();
        scalar_t* y = output.mutable_data_ptr<scalar_t>();
        const NormArrays<acc_t> arrays(in);
        const Norm<acc_t>& n = arrays.norm;
        const scalar_t* other = added.defined() ? added.const_data_ptr<scalar_t>() : nullptr;
        with_constant(relu, [&](auto behind) {
          with_constant(other != nullptr, [&](auto adds) {
            for_each_vector<acc_t>(
                in.input, in.format,
                [=](int64_t i, auto lanes, Vec<acc_t> m, Vec<acc_t> w, Vec<acc_t> b) {
                  Vec<acc_t> value = (load<acc_t>(x + i, lanes) - m) * w + b;
                  if constexpr (adds.value) value += load<acc_t>(other + i, lanes);
                  store<acc_t>(Relu<scalar_t, acc_t, behind.value>::output(value), y + i, lanes);
                },
                n.mean, n.scale, n.bias);
          });
        });
      });
  return output;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> combine(
    const at::Tensor& means, const at::Tensor& sqdevs, const std::optional<at::Tensor>& counts,
    int64_t count, double eps, bool unbiased, bool unbiased_running, double momentum,
    at::Tensor& running_mean, at::Tensor& running_var) {
  const BatchNormParts parts(means, sqdevs, counts, count, eps, unbiased, unbiased_running,
                             momentum, running_mean, running_var);
  AT_DISPATCH_FLOATING_TYPES(parts.means.scalar_type(), "batch_norm_combine", [&] {
    using acc_t = scalar_t;
    AT_DISPATCH_FLOATING_TYPES(running_mean.scalar_type(), "batch_norm_combine", [&] {
      const auto arrays = parts.arrays<acc_t, scalar_t>();
      for (int64_t c = 0; c < parts.rule.channels; ++c) combine_channel(parts.rule, arrays, c);
    });
  });
  return {parts.mean, parts.invstd, parts.total};
}

// The sums of the backward pass; where `grad_residual` is a tensor, of a normalization with an
// addition and a ReLU behind it, whose gradient goes there.
std::tuple<at::Tensor, at::Tensor> reduce(const BatchNormGradient& in, bool relu,
                                          const at::Tensor& residual,
                                          const at::Tensor& grad_residual) {
  at::Tensor sum_dy = empty_per_channel(in.input), sum_dy_xhat = empty_per_channel(in.input);
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, in.input.scalar_type(), "batch_norm_backward_reduce", [&] {
        using acc_t = at::opmath_type<scalar_t>;
        const Layout layout = layout_of(in.input, in.format);
        const scalar_t* x = in.input.const_data_ptr<scalar_t>();
        const scalar_t* g = in.grad_output.const_data_ptr<scalar_t>();
        const bool adding = grad_residual.defined();
        const scalar_t* r = adding ? residual.const_data_ptr<scalar_t>() : nullptr;
        scalar_t* dr = adding ? grad_residual.mutable_data_ptr<scalar_t>() : nullptr;
        const NormArrays<acc_t> arrays(in);
        const Norm<acc_t>& n = arrays.norm;
        acc_t* dy = sum_dy.mutable_data_ptr<acc_t>();
        acc_t* dyx = sum_dy_xhat.mutable_data_ptr<acc_t>();
        const auto sum_up = [&](const auto& gradient) {
          if (!layout.channels_last) {
            for_each_slab<1>(1, layout.channels, [&](int64_t, int64_t c, int64_t) {
              plane_backward_reduce<scalar_t, acc_t>(
                  gradient, x, in.input.size(0), layout.channels, layout.pixels, c, n, dy + c,
                  dyx + c);
            });
            return;
          }
          std::fill_n(dy, layout.channels, acc_t(0));
          std::fill_n(dyx, layout.channels, acc_t(0));
          reduce_pixels<acc_t>(
              in.input.size(0) * layout.pixels, layout.channels,
              [&](int64_t begin, int64_t end, acc_t* chunk_dy, acc_t* chunk_dy_x) {
                pixel_backward_reduce<scalar_t, acc_t>(
                    gradient, x, layout.channels, begin, end, n, chunk_dy, chunk_dy_x);
              },
              [&](int64_t, const acc_t* chunk_dy, const acc_t* chunk_dy_x) {
                for (int64_t c = 0; c < layout.channels; ++c) {
                  dy[c] += chunk_dy[c];
                  dyx[c] += chunk_dy_x[c] * n.invstd[c];
                }
              });
        };
        if (adding) {
          sum_up(Before<scalar_t, acc_t, true, true>{g, r, dr});
        } else {
          with_constant(relu, [&](auto behind) {
            sum_up(Before<scalar_t, acc_t, behind.value, false>{g, r, dr});
          });
        }
      });
  return {sum_dy, sum_dy_xhat};
}

std::tuple<at::Tensor, at::Tensor> backward_reduce(
    const at::Tensor& grad_output, const at::Tensor& input, const at::Tensor& mean,
    const at::Tensor& invstd, const at::Tensor& weight, const at::Tensor& bias, bool relu) {
  return reduce({grad_output, input, mean, invstd, weight, bias}, relu, {}, {});
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward_residual(
    const at::Tensor& grad_output, const at::Tensor& input, const at::Tensor& residual,
    const at::Tensor& mean, const at::Tensor& invstd, const at::Tensor& weight,
    const at::Tensor& bias) {
  const BatchNormGradient in(grad_output, input, mean, invstd, weight, bias);
  at::Tensor grad_residual = in.empty_like_input();
  advise_huge_pages(grad_residual);
  auto [sum_dy, sum_dy_xhat] = reduce(in, true, in.added(residual), grad_residual);
  return {grad_residual, sum_dy, sum_dy_xhat};
}

at::Tensor backward_elementwise(const at::Tensor& grad_output, const at::Tensor& input,
                                const at::Tensor& mean, const at::Tensor& invstd,
                                const at::Tensor& weight, const at::Tensor& bias,
                                const at::Tensor& mean_dy_, const at::Tensor& mean_dy_xhat_,
                                bool relu) {
  const BatchNormGradient in(grad_output, input, mean, invstd, weight, bias);
  const at::Tensor mean_dy = per_channel(mean_dy_, "mean_dy", in.input);
  const at::Tensor mean_dy_xhat = per_channel(mean_dy_xhat_, "mean_dy_xhat", in.input);
  at::Tensor grad_input = in.empty_like_input();
  advise_huge_pages(grad_input);
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, in.input.scalar_type(), "batch_norm_backward_elementwise", [&] {
        using acc_t = at::opmath_type<scalar_t>;
        const scalar_t* x = in.input.const_data_ptr<scalar_t>();
        const scalar_t* g = in.grad_output.const_data_ptr<scalar_t>();
        scalar_t* dx = grad_input.mutable_data_ptr<scalar_t>();
        const NormArrays<acc_t> arrays(in);
        const Norm<acc_t>& n = arrays.norm;
        const auto element = [=](int64_t i, auto lanes, auto behind, Vec<acc_t> m, Vec<acc_t> w,
                                 Vec<acc_t> offset, Vec<acc_t> xhat_slope, Vec<acc_t> b) {
          const Vec<acc_t> d = load<acc_t>(x + i, lanes) - m;
          const Vec<acc_t> dy = Relu<scalar_t, acc_t, decltype(behind)::value>::gradient(
              load<acc_t>(g + i, lanes), d * w + b);
          store<acc_t>(((dy - offset) - d * xhat_slope) * w, dx + i, lanes);
        };
        const acc_t* offset = mean_dy.const_data_ptr<acc_t>();
        const Buffer<acc_t> slope = products<acc_t>(in.invstd, mean_dy_xhat);
        const acc_t* xhat_slope = slope.get();
        if (relu) {
          for_each_vector<acc_t>(
              in.input, in.format,
              [=](int64_t i, auto lanes, Vec<acc_t> m, Vec<acc_t> w, Vec<acc_t> o, Vec<acc_t> s,
                  Vec<acc_t> b) { element(i, lanes, std::true_type(), m, w, o, s, b); },
              n.mean, n.scale, offset, xhat_slope, n.bias);
        } else {
          for_each_vector<acc_t>(
              in.input, in.format,
              [=](int64_t i, auto lanes, Vec<acc_t> m, Vec<acc_t> w, Vec<acc_t> o, Vec<acc_t> s) {
                element(i, lanes, std::false_type(), m, w, o, s, Vec<acc_t>{});
              },
              n.mean, n.scale, offset, xhat_slope);
        }
      });
  return grad_input;
}

}  // namespace

TORCH_LIBRARY_IMPL(pspnet, CPU, m) {
  m.impl("batch_norm_statistics", &statistics);
  m.impl("batch_norm_normalize", &normalize);
  m.impl("batch_norm_combine", &combine);
  m.impl("batch_norm_backward_reduce", &backward_reduce);
  m.impl("batch_norm_backward_residual", &backward_residual);
  m.impl("batch_norm_backward_elementwise", &backward_elementwise);
}

}  // namespace pspnet::cpu
