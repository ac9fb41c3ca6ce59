// From the statistics of several processes to what normalizes a channel, for every device.
#pragma once

#include <cmath>

#include "geometry.h"

namespace pspnet {

struct BatchNormRule {
  int64_t processes, channels;
  int64_t mean_stride, sqdev_stride, count_stride;  // from process to process
  int64_t count;  // of one process alone
  double eps, momentum;
  bool unbiased, unbiased_running;
};

// acc_t and out_t are float or double; void where it is left open which.
template <typename acc_t, typename out_t>
struct BatchNormArrays {
  const acc_t *means, *sqdevs;  // (processes, channels)
  const acc_t* counts;          // (processes), or null for this one alone
  out_t *running_mean, *running_var, *mean, *invstd;
  double* total;
};

// As torch.lerp, which fuses.
template <typename T>
PSPNET_HOST_DEVICE inline void move_towards(T* running, T value, T momentum) {
  const T step = value - *running;
  *running = momentum < T(0.5) ? std::fma(momentum, step, *running)
                               : std::fma(momentum - T(1), step, value);
}

template <typename acc_t, typename out_t>
PSPNET_HOST_DEVICE inline void combine_channel(const BatchNormRule& rule,
                                               const BatchNormArrays<acc_t, out_t>& arrays,
                                               int64_t channel) {
  const acc_t* means = arrays.means + channel;
  const acc_t* sqdevs = arrays.sqdevs + channel;
  double count = static_cast<double>(rule.count);
  acc_t mean = means[0], sqdev = sqdevs[0];
  if (arrays.counts != nullptr) {
    acc_t total = 0, sum = 0;
    for (int64_t p = 0; p < rule.processes; ++p) {
      const acc_t elements = arrays.counts[p * rule.count_stride];
      total += elements;
      sum += elements * means[p * rule.mean_stride];
    }
    mean = sum / total;
    sqdev = 0;
    for (int64_t p = 0; p < rule.processes; ++p) {
      const acc_t distance = means[p * rule.mean_stride] - mean;
      sqdev += sqdevs[p * rule.sqdev_stride] +
               arrays.counts[p * rule.count_stride] * (distance * distance);
    }
    count = total;
  }
  if (channel == 0) *arrays.total = count;
  const double corrected = count - 1 > 1 ? count - 1 : 1;
  const acc_t var = sqdev / static_cast<acc_t>(rule.unbiased ? corrected : count);
  const acc_t running_var =
      rule.unbiased_running ? sqdev / static_cast<acc_t>(corrected) : var;
  const auto momentum = static_cast<out_t>(rule.momentum);
  arrays.mean[channel] = static_cast<out_t>(mean);
  arrays.invstd[channel] =
      static_cast<out_t>(acc_t(1) / std::sqrt(var + static_cast<acc_t>(rule.eps)));
  move_towards(arrays.running_mean + channel, static_cast<out_t>(mean), momentum);
  move_towards(arrays.running_var + channel, static_cast<out_t>(running_var), momentum);
}

}  // namespace pspnet
