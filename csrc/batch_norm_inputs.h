// What the steps of batch normalization of every device take: checked, dense in the memory format
// of the input, and kept alive.
#pragma once

#include "checks.h"

namespace pspnet {

struct BatchNormInput {
  BatchNormInput(const at::Tensor& input_, const at::Tensor& mean_, const at::Tensor& invstd_,
                 const at::Tensor& weight_, const at::Tensor& bias_)
      : format(checked(input_).suggest_memory_format()), input(input_.contiguous(format)),
        mean(per_channel(mean_, "mean", input)), invstd(per_channel(invstd_, "invstd", input)),
        weight(per_channel(weight_, "weight", input)), bias(per_channel(bias_, "bias", input)) {}

  at::Tensor empty_like_input() const { return at::empty_like(input, input.options(), format); }

  at::MemoryFormat format;
  at::Tensor input, mean, invstd, weight, bias;

 private:
  static const at::Tensor& checked(const at::Tensor& input) {
    check_image(input, "input");
    return input;
  }
};

struct BatchNormGradient : BatchNormInput {
  BatchNormGradient(const at::Tensor& grad_output_, const at::Tensor& input_,
                    const at::Tensor& mean_, const at::Tensor& invstd_, const at::Tensor& weight_,
                    const at::Tensor& bias_)
      : BatchNormInput(input_, mean_, invstd_, weight_, bias_) {
    check_same(grad_output_, "grad_output", input.sizes(), input);
    check_same_dtype(grad_output_, "grad_output", input);
    grad_output = grad_output_.contiguous(format);
  }

  at::Tensor grad_output;
};

}  // namespace pspnet
