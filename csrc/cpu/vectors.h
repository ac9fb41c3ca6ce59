// Vectors of values in memory: loads, stores, sums, and loops that take a vector at a time.
#pragma once

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "lanes.h"

namespace pspnet::cpu {

template <typename acc_t, typename scalar_t>
__attribute__((always_inline)) inline Vec<acc_t> load(const scalar_t* source,
                                                      int64_t lanes = Lanes<acc_t>::kCount) {
  Vec<acc_t> result{};
  if constexpr (std::is_same_v<acc_t, scalar_t>) {
    if (lanes == Lanes<acc_t>::kCount) {
      std::memcpy(&result, source, sizeof(result));
      return result;
    }
  }
  for (int64_t l = 0; l < lanes; ++l) {
    result[l] = static_cast<acc_t>(source[l]);
  }
  return result;
}

template <typename acc_t, typename scalar_t>
__attribute__((always_inline)) inline void store(Vec<acc_t> value, scalar_t* target,
                                                 int64_t lanes = Lanes<acc_t>::kCount) {
  if constexpr (std::is_same_v<acc_t, scalar_t>) {
    if (lanes == Lanes<acc_t>::kCount) {
      std::memcpy(target, &value, sizeof(value));
      return;
    }
  }
  for (int64_t l = 0; l < lanes; ++l) {
    target[l] = static_cast<scalar_t>(value[l]);
  }
}

template <typename acc_t>
double total(Vec<acc_t> value) {
  double result = 0;
  for (int64_t l = 0; l < Lanes<acc_t>::kCount; ++l) {
    result += value[l];
  }
  return result;
}

// Sums of term(i, lanes) over i = 0, kCount, ... below count, in four independent chains.
template <typename acc_t, typename Term>
double sum_over(int64_t count, const Term& term) {
  constexpr int64_t kCount = Lanes<acc_t>::kCount;
  Vec<acc_t> sums[4] = {};
  int64_t i = 0;
  for (; i + 4 * kCount <= count; i += 4 * kCount) {
    for (int64_t k = 0; k < 4; ++k) {
      sums[k] += term(i + k * kCount, kCount);
    }
  }
  for (; i < count; i += kCount) {
    sums[0] += term(i, std::min(kCount, count - i));
  }
  return total<acc_t>((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// Keeps idle lanes of a partial vector at zero.
template <typename acc_t>
Vec<acc_t> keep(Vec<acc_t> value, int64_t lanes) {
  for (int64_t l = lanes; l < Lanes<acc_t>::kCount; ++l) {
    value[l] = 0;
  }
  return value;
}

// Calls body(i, lanes) for every vector of `count` contiguous values; the type of `lanes` tells
// the compiler where vectors are full.
template <typename acc_t, typename Body>
void for_each_chunk(int64_t count, const Body& body) {
  constexpr int64_t kCount = Lanes<acc_t>::kCount;
  int64_t i = 0;
  for (; i + kCount <= count; i += kCount) {
    body(i, std::integral_constant<int64_t, kCount>());
  }
  if (i < count) {
    body(i, count - i);
  }
}

// Calls body(p, size) for the pixels [begin, end) in groups of eight, then one by one; the type of
// `size` lets the compiler unroll.
template <typename Body>
void for_each_group(int64_t begin, int64_t end, const Body& body) {
  int64_t p = begin;
  for (; p + 8 <= end; p += 8) {
    body(p, std::integral_constant<int64_t, 8>());
  }
  for (; p < end; ++p) {
    body(p, std::integral_constant<int64_t, 1>());
  }
}

// Calls body(c, vectors, lanes) for blocks of whole vectors of channels, eight at a time while
// there are so many, then for what is left of a vector; the type of `vectors` lets the compiler
// keep a block in registers.
template <typename acc_t, typename Body>
void for_each_block(int64_t channels, const Body& body) {
  constexpr int64_t kCount = Lanes<acc_t>::kCount;
  int64_t c = 0;
  const auto run = [&](auto vectors) {
    for (; c + vectors * kCount <= channels; c += vectors * kCount) {
      body(c, vectors, std::integral_constant<int64_t, kCount>());
    }
  };
  run(std::integral_constant<int64_t, 8>());
  run(std::integral_constant<int64_t, 4>());
  run(std::integral_constant<int64_t, 2>());
  run(std::integral_constant<int64_t, 1>());
  if (c < channels) {
    body(c, std::integral_constant<int64_t, 1>(), channels - c);
  }
}

}  // namespace pspnet::cpu
