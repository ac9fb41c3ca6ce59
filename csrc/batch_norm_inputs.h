// What the steps of batch normalization of every device take: checked, dense in the memory format
// of the input, and kept alive.
#pragma once

#include <utility>

#include "batch_norm_rules.h"
#include "checks.h"

namespace pspnet {

struct BatchNormInput {
  BatchNormInput(const at::Tensor& input_, const at::Tensor& mean_, const at::Tensor& invstd_,
                 const at::Tensor& weight_, const at::Tensor& bias_)
      : format(checked(input_).suggest_memory_format()), input(input_.contiguous(format)),
        mean(per_channel(mean_, "mean", input)), invstd(per_channel(invstd_, "invstd", input)),
        weight(per_channel(weight_, "weight", input)), bias(per_channel(bias_, "bias", input)) {}

  // The tensor that is added behind, in the input's format.
  at::Tensor added(const at::Tensor& residual) const {
    check_same(residual, "residual", input.sizes(), input);
    check_same_dtype(residual, "residual", input);
    return residual.contiguous(format);
  }

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

// What several processes, or this one alone, found of every channel; and the running values.
struct BatchNormParts {
  BatchNormParts(const at::Tensor& means_, const at::Tensor& sqdevs_,
                 const std::optional<at::Tensor>& counts_, int64_t count, double eps_,
                 bool unbiased, bool unbiased_running, double momentum,
                 const at::Tensor& running_mean_, const at::Tensor& running_var_)
      : running_mean(running_mean_), running_var(running_var_) {
    TORCH_CHECK(means_.dim() == 2, "means must be (processes, channels), got ", means_.dim(), "-D");
    TORCH_CHECK(means_.scalar_type() == at::kFloat || means_.scalar_type() == at::kDouble,
                "means must be float32 or float64, got ", means_.scalar_type());
    check_same(sqdevs_, "sqdevs", means_.sizes(), means_);
    check_same_dtype(sqdevs_, "sqdevs", means_);
    const int64_t processes = means_.size(0), channels = means_.size(1);
    TORCH_CHECK(counts_.has_value() || processes == 1,
                "counts must be there for more than one process, got ", processes);
    means = means_.stride(1) == 1 ? means_ : means_.contiguous();
    sqdevs = sqdevs_.stride(1) == 1 ? sqdevs_ : sqdevs_.contiguous();
    if (counts_.has_value()) {
      check_same(*counts_, "counts", {processes}, means);
      check_same_dtype(*counts_, "counts", means);
      counts = *counts_;
    }
    for (const auto& [tensor, name] : {std::pair(&running_mean, "running_mean"),
                                       std::pair(&running_var, "running_var")}) {
      check_same(*tensor, name, {channels}, means);
      TORCH_CHECK((tensor->scalar_type() == at::kFloat || tensor->scalar_type() == at::kDouble) &&
                      tensor->scalar_type() == running_mean.scalar_type() &&
                      tensor->is_contiguous(),
                  name, " must be contiguous and float32 or float64 like the other, got ",
                  tensor->scalar_type());
    }
    mean = at::empty_like(running_mean);
    invstd = at::empty_like(running_mean);
    total = at::empty({}, means.options().dtype(at::kDouble));
    rule = {processes, channels, means.stride(0), sqdevs.stride(0),
            counts.defined() ? counts.stride(0) : 0, count, eps_, momentum, unbiased,
            unbiased_running};
  }

  // Of acc_t and out_t, the types of means and running values.
  template <typename acc_t, typename out_t>
  BatchNormArrays<acc_t, out_t> arrays() const {
    return {means.const_data_ptr<acc_t>(), sqdevs.const_data_ptr<acc_t>(),
            counts.defined() ? counts.const_data_ptr<acc_t>() : nullptr,
            running_mean.mutable_data_ptr<out_t>(), running_var.mutable_data_ptr<out_t>(),
            mean.mutable_data_ptr<out_t>(), invstd.mutable_data_ptr<out_t>(),
            total.mutable_data_ptr<double>()};
  }

  at::Tensor means, sqdevs, counts, running_mean, running_var, mean, invstd, total;
  BatchNormRule rule;
};

}  // namespace pspnet
