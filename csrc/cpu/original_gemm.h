// Panels of matrix products with the order of sums of OpenBLAS's kernel for AVX2.
#pragma once

#if defined(__FMA__)
#include <immintrin.h>
#endif

#include <cmath>
#include <vector>

#include "lanes.h"

namespace pspnet::cpu {

#if defined(__AVX512F__)
constexpr int64_t kWidth = 16, kRows = 12;
#else
constexpr int64_t kWidth = 8, kRows = 6;
#endif
constexpr int64_t kColumns = 2 * kWidth;
typedef float Floats __attribute__((vector_size(4 * kWidth), may_alias));

inline Floats fused_multiply_add(Floats a, Floats b, Floats c) {
#if defined(__AVX512F__)
  return reinterpret_cast<Floats>(_mm512_fmadd_ps(
      reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), reinterpret_cast<__m512>(c)));
#elif defined(__FMA__)
  return reinterpret_cast<Floats>(_mm256_fmadd_ps(
      reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), reinterpret_cast<__m256>(c)));
#else
  for (int64_t l = 0; l < kWidth; ++l) {
    c[l] = std::fma(a[l], b[l], c[l]);
  }
  return c;
#endif
}

// The original cuts the terms of a sum, and the columns of a result, into blocks of at most this.
constexpr int64_t kBlock = 320;

// Size of the next block, of `left` that remain.
inline int64_t next_block(int64_t left) {
  if (left >= 2 * kBlock) {
    return kBlock;
  }
  return left > kBlock ? (left / 2 + 7) / 8 * 8 : left;
}

// Most sums of a block run from its first term to its last. Others run twice, over the even and
// over the odd terms of all whole eights, the rest following the even ones, and are then added: in
// which eights of columns depends on the row.
class Halves {
 public:
  Halves(int64_t rows, int64_t columns) : rows_(rows) {
    int64_t size = 0;
    for (int64_t from = 0; from < columns; from += size) {
      size = next_block(columns - from);
      const int64_t count = size / 8;
      for (int64_t k = 0; k < count; ++k) {
        const bool last = k == count - 1;
        so_[kUpper].push_back(count > 1 && (k == 0 || (last && count % 2 == 0)));
        so_[kLower].push_back(count > 1 && last && count % 2 == 1);
        so_[kFour].push_back(true);
        so_[kEight].push_back(from == 0);
        so_[kOther].push_back(false);
      }
      if (size % 8 != 0) {
        for (auto& row : so_) {
          row.push_back(false);
        }
      }
    }
  }

  // Whether the original so sums row `row` of columns 8 * eight to 8 * eight + 7.
  bool at(int64_t row, int64_t eight) const { return so_[kind(row)][eight]; }

 private:
  // Rows come in twelves, of which the upper and the lower six differ, then in fours.
  enum Kind { kUpper, kLower, kFour, kEight, kOther };

  Kind kind(int64_t row) const {
    const int64_t rest = rows_ % 12, in_rest = row - (rows_ - rest);
    if (in_rest < 0) {
      return row % 12 < 6 ? kUpper : kLower;
    }
    return in_rest >= rest / 4 * 4 ? kOther : rest < 8 ? kFour : kEight;
  }

  int64_t rows_;
  std::vector<char> so_[5];
};

// Tiles of the result, each computed by one thread; rows of a tile are packed a part at a time.
constexpr int64_t kTileRows = 384, kTileColumns = 384, kPartRows = 96;
static_assert(kPartRows % kRows == 0 && kTileColumns % kColumns == 0);

// packed[panel][term][lane] = x[lane * lane_stride + term * term_stride] for panels of kLanes
// lanes; idle lanes get 0.
template <int64_t kLanes>
void pack(const float* x, int64_t lanes, int64_t lane_stride, int64_t terms, int64_t term_stride,
          float* packed) {
  for (int64_t panel = 0; panel < lanes; panel += kLanes, packed += kLanes * terms) {
    const float* from = x + panel * lane_stride;
    const int64_t filled = std::min(kLanes, lanes - panel);
    if (filled < kLanes) {
      std::fill_n(packed, kLanes * terms, 0.f);
    }
    if (lane_stride == 1) {
      for (int64_t k = 0; k < terms; ++k) {
        std::copy_n(from + k * term_stride, filled, packed + k * kLanes);
      }
    } else {
      for (int64_t l = 0; l < filled; ++l) {
        for (int64_t k = 0; k < terms; ++k) {
          packed[k * kLanes + l] = from[l * lane_stride + k * term_stride];
        }
      }
    }
  }
}

// sums = a * b for one panel of kRows rows and one of kColumns columns.
inline void multiply_panels(int64_t terms, const float* a, const float* b, float* sums) {
  Floats registers[kRows][2] = {};
  for (int64_t k = 0; k < terms; ++k) {
    Floats left, right;
    std::memcpy(&left, b + k * kColumns, sizeof(left));
    std::memcpy(&right, b + k * kColumns + kWidth, sizeof(right));
    for (int64_t i = 0; i < kRows; ++i) {
      const Floats factor = Floats{} + a[k * kRows + i];
      registers[i][0] = fused_multiply_add(factor, left, registers[i][0]);
      registers[i][1] = fused_multiply_add(factor, right, registers[i][1]);
    }
  }
  std::memcpy(sums, registers, sizeof(registers));
}

// The same in halves for two rows and eight columns, the rows of `sums` kColumns apart.
inline void multiply_in_halves(int64_t terms, const float* a, const float* b, float* sums) {
  float even[2][8] = {}, odd[2][8] = {};
  const auto add = [&](int64_t k, float (*half)[8]) {
    for (int64_t i = 0; i < 2; ++i) {
      for (int64_t l = 0; l < 8; ++l) {
        half[i][l] = std::fma(a[k * kRows + i], b[k * kColumns + l], half[i][l]);
      }
    }
  };
  const int64_t whole = terms / 8 * 8;
  for (int64_t k = 0; k < whole; k += 2) {
    add(k, even);
    add(k + 1, odd);
  }
  for (int64_t k = whole; k < terms; ++k) {
    add(k, even);
  }
  for (int64_t i = 0; i < 2; ++i) {
    for (int64_t l = 0; l < 8; ++l) {
      sums[i * kColumns + l] = even[i][l] + odd[i][l];
    }
  }
}

// c += a * b for packed rows from `row` and columns from `column`.
inline void multiply_packed(int64_t terms, const float* a, const float* b, const Halves& halves,
                            int64_t row, int64_t rows, int64_t column, int64_t columns, float* c,
                            int64_t c_stride) {
  for (int64_t s = 0; s < columns; s += kColumns) {
    for (int64_t r = 0; r < rows; r += kRows) {
      const float* panel_a = a + r * terms;
      const float* panel_b = b + s * terms;
      const int64_t high = std::min(kRows, rows - r), wide = std::min(kColumns, columns - s);
      alignas(64) float sums[kRows * kColumns];
      multiply_panels(terms, panel_a, panel_b, sums);
      for (int64_t i = 0; i < high; i += 2) {
        for (int64_t l = 0; l < wide; l += 8) {
          if (halves.at(row + r + i, (column + s + l) / 8)) {
            multiply_in_halves(terms, panel_a + i, panel_b + l, sums + i * kColumns + l);
          }
        }
      }
      for (int64_t i = 0; i < high; ++i) {
        float* target = c + (r + i) * c_stride + s;
        for (int64_t l = 0; l < wide; ++l) {
          target[l] += sums[i * kColumns + l];
        }
      }
    }
  }
}

}  // namespace pspnet::cpu
