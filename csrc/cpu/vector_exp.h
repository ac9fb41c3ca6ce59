// exp of a vector of floats, so that softmax runs on whole registers.
#pragma once

#include "lanes.h"

namespace pspnet::cpu {

// exp(x) for x <= 0, relative error below 2e-7; 0 below -86, where results would leave the normal
// numbers; NaN for NaN.
//
// x = n * ln 2 + r with |r| <= ln 2 / 2, exp(x) = 2^n * exp(r). The polynomial's relative error on
// that interval is 2e-8: least squares in relative error, reweighted until it is level.
inline Vec<float> exp_not_positive(Vec<float> x) {
  typedef Lanes<int32_t>::type Bits;
  constexpr float kLowest = -86.f;
  const Vec<float> bounded = x < kLowest ? Vec<float>{} + kLowest : x;
  // Adding 1.5 * 2^23 leaves the nearest whole number in the low bits of the sum.
  constexpr float kRound = 12582912.f;
  const Vec<float> rounded = bounded * 1.44269504f + kRound;
  const Vec<float> n = rounded - kRound;
  // ln 2 in two parts, the first with few bits: n times it is exact.
  const Vec<float> r = (bounded - n * 0.693359375f) + n * 2.12194440e-4f;
  Vec<float> p = r * 0.00138368458f + 0.00837481581f;
  p = p * r + 0.0416682251f;
  p = p * r + 0.166664198f;
  p = p * r + 0.4999999106f;
  p = p * r + 1.f;
  p = p * r + 1.f;
  Bits rounded_bits, bits;
  std::memcpy(&rounded_bits, &rounded, sizeof(bits));
  std::memcpy(&bits, &p, sizeof(bits));
  bits += rounded_bits << 23;  // adds n to the exponent; the bits above n fall off
  std::memcpy(&p, &bits, sizeof(bits));
  return x < kLowest ? Vec<float>{} : p;
}

}  // namespace pspnet::cpu
