// A step of the original's solver on one number, for every device.
#pragma once

#include <cmath>

#include "geometry.h"

namespace pspnet {

struct SgdRule {
  double grad_scale, decay, momentum, rate;
};

// Weight and momentum after a step, in the order and with the roundings of the original's axpy.
template <typename T>
struct SgdStep {
  T grad_scale, decay, momentum, rate;
  bool decays;

  explicit SgdStep(const SgdRule& rule)
      : grad_scale(static_cast<T>(rule.grad_scale)), decay(static_cast<T>(rule.decay)),
        momentum(static_cast<T>(rule.momentum)), rate(static_cast<T>(rule.rate)),
        decays(rule.decay != 0) {}

  // Elements that the original's axpy fuses: all but a rest of less than 32.
  PSPNET_HOST_DEVICE static int64_t fused(int64_t elements) { return elements / 32 * 32; }

  PSPNET_HOST_DEVICE void operator()(bool fuses, T grad, T* weight, T* buffer) const {
    grad *= grad_scale;
    if (decays) grad = fuses ? std::fma(decay, *weight, grad) : grad + decay * *weight;
    const T kept = *buffer * momentum;
    *buffer = fuses ? std::fma(rate, grad, kept) : kept + rate * grad;
    *weight -= *buffer;
  }
};

}  // namespace pspnet
