// Vectors that fit a register of the processor that this is compiled for: compilers take the
// larger ones of lanes.h apart in memory where they compare and select.
#pragma once

#include <cstdint>

namespace pspnet::cpu {

template <typename T>
struct RegisterOf {
#if defined(__AVX512F__)
  static constexpr int64_t kBytes = 64;
#else
  static constexpr int64_t kBytes = 32;
#endif
  typedef T type __attribute__((vector_size(kBytes), may_alias));
  static constexpr int64_t kCount = kBytes / sizeof(T);
};
template <typename T>
using Register = typename RegisterOf<T>::type;

}  // namespace pspnet::cpu
