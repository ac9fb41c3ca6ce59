// Vectors of channels: one lane a channel, so that each channel keeps the original's order of sums
// while the compiler uses whole registers.
#pragma once

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

namespace pspnet::cpu {

template <typename T>
struct Lanes {
  typedef T type __attribute__((vector_size(64), may_alias));
  static constexpr int64_t kCount = 64 / sizeof(T);
};
template <typename T>
using Vec = typename Lanes<T>::type;

// Comparisons of vectors give integers of the lanes' width: so are indices kept.
template <typename T>
using LaneIndex = std::conditional_t<sizeof(T) == 8, int64_t, int32_t>;

template <typename T>
struct FreeDeleter {
  void operator()(T* pointer) const { std::free(pointer); }
};
template <typename T>
using Buffer = std::unique_ptr<T[], FreeDeleter<T>>;

// Uninitialized memory aligned for vectors.
template <typename T>
Buffer<T> make_buffer(int64_t count) {
  const size_t bytes = (static_cast<size_t>(count) * sizeof(T) + 63) / 64 * 64;
  void* memory = std::aligned_alloc(64, std::max<size_t>(bytes, 64));
  if (memory == nullptr) {
    throw std::bad_alloc();
  }
  return Buffer<T>(static_cast<T*>(memory));
}

// A scalar buffer seen as vectors of lanes.
template <typename T>
Vec<T>* vectors(const Buffer<T>& buffer) {
  return reinterpret_cast<Vec<T>*>(buffer.get());
}

// Asks for huge pages under a large new tensor: touching 4 KiB pages one by one takes longer than
// filling them.
inline void advise_huge_pages(const at::Tensor& tensor) {
#if defined(__linux__)
  constexpr uintptr_t kHuge = uintptr_t{1} << 21;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(tensor.data_ptr());
  const uintptr_t first = (begin + kHuge - 1) / kHuge * kHuge;
  const uintptr_t last = (begin + tensor.nbytes()) / kHuge * kHuge;
  if (first < last) {
    madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
  }
#endif
}

// Steps between channels and between pixels of a dense (N, C, H, W) tensor.
struct Layout {
  int64_t channels;
  int64_t pixels;
  bool channels_last;
  int64_t channel_stride() const { return channels_last ? 1 : pixels; }
  int64_t pixel_stride() const { return channels_last ? channels : 1; }
  int64_t offset(int64_t image, int64_t channel) const {
    return image * channels * pixels + channel * channel_stride();
  }
};

inline Layout layout_of(const at::Tensor& tensor, at::MemoryFormat format) {
  return {tensor.size(1), tensor.size(2) * tensor.size(3),
          format == at::MemoryFormat::ChannelsLast};
}

// Calls body(image, channel, lanes) for every group of kWidth channels, in parallel.
template <int64_t kWidth, typename Body>
void for_each_slab(int64_t images, int64_t channels, const Body& body) {
  const int64_t slabs = (channels + kWidth - 1) / kWidth;
  at::parallel_for(0, images * slabs, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t channel = task % slabs * kWidth;
      body(task / slabs, channel, std::min(kWidth, channels - channel));
    }
  });
}

// Runs body<kWidth>(image, channel, lanes): planes one by one, channels-last slabs by the vector.
template <typename acc_t, typename Body>
void for_each_slab_of(at::MemoryFormat format, const at::Tensor& tensor, const Body& body) {
  constexpr int64_t kCount = Lanes<acc_t>::kCount;
  const auto run = [&](auto width) {
    for_each_slab<decltype(width)::value>(
        tensor.size(0), tensor.size(1),
        [&](int64_t image, int64_t channel, int64_t lanes) { body(width, image, channel, lanes); });
  };
  if (format == at::MemoryFormat::ChannelsLast) {
    run(std::integral_constant<int64_t, kCount>{});
  } else {
    run(std::integral_constant<int64_t, 1>{});
  }
}

// Exchanges the lanes of `a` that have bit kStep with those of `b` that lack it.
template <int64_t kStep, typename T, size_t... J>
inline void butterfly(Vec<T>& a, Vec<T>& b, std::index_sequence<J...>) {
  constexpr size_t kCount = Lanes<T>::kCount, step = kStep;
#if defined(__clang__)
  const Vec<T> low = __builtin_shufflevector(a, b, (J & step ? kCount + J - step : J)...);
  const Vec<T> high = __builtin_shufflevector(a, b, (J & step ? kCount + J : J + step)...);
#else
  typedef typename Lanes<LaneIndex<T>>::type Mask;
  const Mask low_mask = {static_cast<LaneIndex<T>>(J & step ? kCount + J - step : J)...};
  const Mask high_mask = {static_cast<LaneIndex<T>>(J & step ? kCount + J : J + step)...};
  const Vec<T> low = __builtin_shuffle(a, b, low_mask);
  const Vec<T> high = __builtin_shuffle(a, b, high_mask);
#endif
  a = low;
  b = high;
}

// Transposes a square of kCount vectors by exchanging ever larger off-diagonal blocks.
template <typename T, int64_t kStep = 1>
inline void transpose(Vec<T>* rows) {
  constexpr int64_t kCount = Lanes<T>::kCount;
  for (int64_t i = 0; i < kCount; ++i) {
    if ((i & kStep) == 0) {
      butterfly<kStep, T>(rows[i], rows[i + kStep], std::make_index_sequence<kCount>());
    }
  }
  if constexpr (2 * kStep < kCount) {
    transpose<T, 2 * kStep>(rows);
  }
}

// Calls body(x) for squares of kWidth that cover [0, count); the last overlaps its neighbour, which
// costs less than a ragged end.
template <int64_t kWidth, typename Body>
void for_each_square(int64_t count, const Body& body) {
  for (int64_t x = 0; x < count; x += kWidth) {
    body(std::min(x, count - kWidth));
  }
}

// buffer[x * kWidth + lane] = plane(lane)[x] for `count` pixels from `source`; idle lanes get 0.
template <int64_t kWidth, typename scalar_t, typename acc_t>
void load_lanes(const scalar_t* source, const Layout& layout, int64_t lanes, int64_t count,
                acc_t* buffer) {
  if (layout.channels_last && lanes == kWidth) {
    for (int64_t x = 0; x < count; ++x) {
      for (int64_t l = 0; l < kWidth; ++l) {
        buffer[x * kWidth + l] = static_cast<acc_t>(source[x * layout.channels + l]);
      }
    }
    return;
  }
  if constexpr (std::is_same_v<scalar_t, acc_t> && kWidth == Lanes<acc_t>::kCount) {
    if (!layout.channels_last && lanes == kWidth && count >= kWidth) {
      for_each_square<kWidth>(count, [&](int64_t at) {
        Vec<acc_t> square[kWidth];
        for (int64_t l = 0; l < kWidth; ++l) {
          const scalar_t* from = source + l * layout.pixels + at;
          __builtin_prefetch(from + 4 * kWidth);  // too many planes for the hardware to follow
          std::memcpy(&square[l], from, sizeof(square[l]));
        }
        transpose<acc_t>(square);
        for (int64_t x = 0; x < kWidth; ++x) {  // one copy of all would be a call, from the stack
          std::memcpy(buffer + (at + x) * kWidth, &square[x], sizeof(square[x]));
        }
      });
      return;
    }
  }
  for (int64_t l = 0; l < kWidth; ++l) {
    const scalar_t* plane = source + l * layout.channel_stride();
    for (int64_t x = 0; x < count; ++x) {
      buffer[x * kWidth + l] =
          l < lanes ? static_cast<acc_t>(plane[x * layout.pixel_stride()]) : acc_t(0);
    }
  }
}

// The inverse of load_lanes; idle lanes are dropped.
template <int64_t kWidth, typename scalar_t, typename acc_t>
void store_lanes(const acc_t* buffer, const Layout& layout, int64_t lanes, int64_t count,
                 scalar_t* target) {
  if (layout.channels_last) {
    for (int64_t x = 0; x < count; ++x) {
      for (int64_t l = 0; l < lanes; ++l) {
        target[x * layout.channels + l] = static_cast<scalar_t>(buffer[x * kWidth + l]);
      }
    }
    return;
  }
  if constexpr (std::is_same_v<scalar_t, acc_t> && kWidth == Lanes<acc_t>::kCount) {
    if (lanes == kWidth && count >= kWidth) {
      for_each_square<kWidth>(count, [&](int64_t at) {
        Vec<acc_t> square[kWidth];
        for (int64_t x = 0; x < kWidth; ++x) {
          std::memcpy(&square[x], buffer + (at + x) * kWidth, sizeof(square[x]));
        }
        transpose<acc_t>(square);
        for (int64_t l = 0; l < kWidth; ++l) {
          std::memcpy(target + l * layout.pixels + at, &square[l], sizeof(square[l]));
        }
      });
      return;
    }
  }
  for (int64_t l = 0; l < lanes; ++l) {
    for (int64_t x = 0; x < count; ++x) {
      target[l * layout.pixels + x] = static_cast<scalar_t>(buffer[x * kWidth + l]);
    }
  }
}

}  // namespace pspnet::cpu
