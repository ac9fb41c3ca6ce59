// Several elements in one instruction: 16 bytes where sizes and addresses allow, else 8, 4 or one.
#pragma once

#include "launch.h"

namespace pspnet::cuda {

constexpr int kPackBytes = 16;

// body(integral constant) for a number of elements that pack_of gave.
template <typename T, typename Body>
void dispatch_packs(int pack, const Body& body) {
  constexpr int kWhole = kPackBytes / sizeof(T);
  switch (pack * sizeof(T)) {
    case 16: return body(Count<kWhole>());
    case 8: return body(Count<(kWhole > 2 ? kWhole / 2 : 1)>());
    case 4: return body(Count<(kWhole > 4 ? kWhole / 4 : 1)>());
    default: return body(Count<1>());
  }
}

// How many elements of T a thread moves at once: as many as 16, 8 or 4 bytes hold, where runs of
// `run` elements are whole packs and all pointers aligned, else 1.
template <typename T, typename... Pointers>
int pack_of(int64_t run, const Pointers*... pointers) {
  int pack = kPackBytes / sizeof(T);
  const auto fits = [&](const void* pointer) {
    return reinterpret_cast<uintptr_t>(pointer) % (pack * sizeof(T)) == 0;
  };
  while (pack > 1 && !(run % pack == 0 && (fits(pointers) && ...))) pack /= 2;
  return pack;
}

template <typename T>
bool aligned(const T* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % kPackBytes == 0;
}

// What one instruction moves. Stores of single values are what the compiler makes of a store of
// several where a branch beside it stores the same; of __stwb it makes one.
template <int kBytes>
struct Word {
  using type = uint4;
};
template <>
struct Word<8> {
  using type = uint2;
};
template <>
struct Word<4> {
  using type = unsigned int;
};
template <typename T, int kCount>
union Pack {
  using Words = typename Word<sizeof(T) * kCount>::type;
  static_assert(sizeof(Words) == sizeof(T) * kCount);
  Words words;
  T values[kCount];
  __device__ Pack() {}
};
template <typename T, int kCount>
constexpr int kAtOnce = kCount * sizeof(T) > kPackBytes ? kPackBytes / sizeof(T) : kCount;

template <int kCount, typename T, typename Value>
__device__ inline void load_pack(const T* source, Value* target) {
  if constexpr (kCount == 1) {
    *target = widen(*source);
  } else {
    using Whole = Pack<T, kAtOnce<T, kCount>>;
#pragma unroll
    for (int first = 0; first < kCount; first += kAtOnce<T, kCount>) {
      Whole pack;
      pack.words = *reinterpret_cast<const typename Whole::Words*>(source + first);
#pragma unroll
      for (int k = 0; k < kAtOnce<T, kCount>; ++k) target[first + k] = widen(pack.values[k]);
    }
  }
}

template <int kCount, typename T, typename Value>
__device__ inline void store_pack(const Value* source, T* target) {
  if constexpr (kCount == 1) {
    narrow(*source, target);
  } else {
    using Whole = Pack<T, kAtOnce<T, kCount>>;
#pragma unroll
    for (int first = 0; first < kCount; first += kAtOnce<T, kCount>) {
      Whole pack;
#pragma unroll
      for (int k = 0; k < kAtOnce<T, kCount>; ++k) narrow(source[first + k], &pack.values[k]);
      __stwb(reinterpret_cast<typename Whole::Words*>(target + first), pack.words);
    }
  }
}

}  // namespace pspnet::cuda
