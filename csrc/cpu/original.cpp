// The arithmetic of the original's CPU program: the matrix products and sums of its BLAS (OpenBLAS,
// one thread, the kernels for processors with AVX2) and the C library's functions. Each number
// keeps their order of sums and their fused multiply-adds, on any processor.
#include <ATen/Functions.h>
#include <torch/library.h>

#if defined(__FMA__)
#include <immintrin.h>
#endif

#include <cmath>
#include <optional>
#include <vector>

#include "../checks.h"
#include "lanes.h"

namespace pspnet::cpu {
namespace {

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
int64_t next_block(int64_t left) {
  if (left >= 2 * kBlock) {
    return kBlock;
  }
  return left > kBlock ? (left / 2 + 7) / 8 * 8 : left;
}

// Most sums of a block run from its first term to its last. Others run twice, over the even and over
// the odd terms of all whole eights, the rest following the even ones, and are then added: in which
// eights of columns depends on the row.
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
void multiply_panels(int64_t terms, const float* a, const float* b, float* sums) {
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
void multiply_in_halves(int64_t terms, const float* a, const float* b, float* sums) {
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
void multiply_packed(int64_t terms, const float* a, const float* b, const Halves& halves,
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

void check_matrix(const at::Tensor& tensor, const char* name) {
  TORCH_CHECK(tensor.dim() == 2, name, " must be 2-D, got ", tensor.dim(), "-D");
  TORCH_CHECK(tensor.scalar_type() == at::kFloat, name, " must be float32, got ",
              tensor.scalar_type());
}

at::Tensor start_of(const std::optional<at::Tensor>& sum, at::IntArrayRef sizes,
                    const at::Tensor& like) {
  if (!sum.has_value()) {
    return at::zeros(sizes, like.options());
  }
  check_same(*sum, "sum", sizes, like);
  check_same_dtype(*sum, "sum", like);
  return sum->clone(at::MemoryFormat::Contiguous);
}

at::Tensor gemm(const at::Tensor& a, const at::Tensor& b, const std::optional<at::Tensor>& sum) {
  check_matrix(a, "a");
  check_matrix(b, "b");
  TORCH_CHECK(a.size(1) == b.size(0), "a must have as many columns as b has rows, ", b.size(0),
              ", got ", a.size(1));
  const int64_t m = a.size(0), n = b.size(1), terms = a.size(1);
  at::Tensor result = start_of(sum, {m, n}, a);
  const float* left = a.const_data_ptr<float>();
  const float* right = b.const_data_ptr<float>();
  float* c = result.mutable_data_ptr<float>();
  const Halves halves(m, n);
  const int64_t down = (m + kTileRows - 1) / kTileRows;
  const int64_t across = (n + kTileColumns - 1) / kTileColumns;
  at::parallel_for(0, down * across, 1, [&](int64_t begin, int64_t end) {
    Buffer<float> packed_a = make_buffer<float>(kPartRows * kBlock);
    Buffer<float> packed_b = make_buffer<float>(kTileColumns * kBlock);
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t j = tile / down * kTileColumns, columns = std::min(kTileColumns, n - j);
      const int64_t first = tile % down * kTileRows, last = std::min(first + kTileRows, m);
      int64_t count = 0;
      for (int64_t k = 0; k < terms; k += count) {
        count = next_block(terms - k);
        pack<kColumns>(right + k * b.stride(0) + j * b.stride(1), columns, b.stride(1), count,
                       b.stride(0), packed_b.get());
        for (int64_t i = first; i < last; i += kPartRows) {
          const int64_t rows = std::min(kPartRows, last - i);
          pack<kRows>(left + i * a.stride(0) + k * a.stride(1), rows, a.stride(0), count,
                      a.stride(1), packed_a.get());
          multiply_packed(count, packed_a.get(), packed_b.get(), halves, i, rows, j, columns,
                          c + i * n + j, n);
        }
      }
    }
  });
  return result;
}

// Sum of a multiple of 4 numbers: the first four alone where 8 does not divide their count, then
// eight lanes; or four lanes throughout.
float sum_lanes(const float* x, int64_t count, bool wide) {
  float lanes[8] = {};
  int64_t i = 0;
  if (wide && count % 8 != 0) {
    std::copy_n(x, 4, lanes);
    i = 4;
  }
  const int64_t step = wide ? 8 : 4;
  for (; i < count; i += step) {
    for (int64_t l = 0; l < step; ++l) {
      lanes[l] += x[i + l];
    }
  }
  for (int64_t l = 0; wide && l < 4; ++l) {
    lanes[l] += lanes[l + 4];
  }
  return (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
}

constexpr int64_t kSumBlock = 4096;

at::Tensor sum_rows(const at::Tensor& a_, double alpha_, const std::optional<at::Tensor>& sum) {
  check_matrix(a_, "a");
  const at::Tensor a = a_.contiguous();
  const int64_t m = a.size(0), n = a.size(1), tail = n % 4;
  const float alpha = static_cast<float>(alpha_);
  at::Tensor result = start_of(sum, {m}, a);
  const float* data = a.const_data_ptr<float>();
  float* y = result.mutable_data_ptr<float>();
  at::parallel_for(0, m, 16, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* x = data + r * n;
      // Rows come in fours, then two, then one.
      const bool wide = r < m / 4 * 4 || (m % 2 == 1 && r == m - 1);
      for (int64_t i = 0; i < n - tail; i += kSumBlock) {
        y[r] += alpha * sum_lanes(x + i, std::min(kSumBlock, n - tail - i), wide);
      }
      x += n - tail;
      if (tail > 0) {
        float part = x[0] * alpha;
        for (int64_t i = 1; i < tail; ++i) {
          part += x[i] * alpha;
        }
        y[r] += part;
      }
    }
  });
  return result;
}

at::Tensor sum_columns(const at::Tensor& a_, double alpha_, const std::optional<at::Tensor>& sum) {
  check_matrix(a_, "a");
  const at::Tensor a = a_.contiguous();
  const int64_t m = a.size(0), n = a.size(1), tail = n % 4;
  const float alpha = static_cast<float>(alpha_);
  at::Tensor result = start_of(sum, {n}, a);
  const float* x = a.const_data_ptr<float>();
  float* y = result.mutable_data_ptr<float>();
  const auto at = [&](int64_t r, int64_t c) { return x[r * n + c]; };
  at::parallel_for(0, n, 1024, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      int64_t r = 0;
      if (c < n - tail) {
        // Sixteens add one by one, what the block has besides them, first, in pairs.
        const int64_t from = c / kSumBlock * kSumBlock;
        const bool pairs = c - from < std::min(kSumBlock, n - tail - from) % 16;
        for (const int64_t step : {8, 4}) {
          for (; r + step <= m; r += step) {
            float part = at(r, c), odd = at(r + 1, c);
            if (pairs) {
              for (int64_t k = 2; k < step; ++k) {
                (k % 2 == 0 ? part : odd) += at(r + k, c);
              }
              y[c] += (part + odd) * alpha;
            } else {
              part += odd;
              for (int64_t k = 2; k < step; ++k) {
                part += at(r + k, c);
              }
              y[c] = std::fma(part, alpha, y[c]);
            }
          }
        }
        for (; r < m; ++r) {
          y[c] += at(r, c) * alpha;
        }
        continue;
      }
      // The last columns; where there are no others, several rows at a time.
      float total = 0;
      const int64_t step = n == 1 ? 4 : 2;
      for (; n < 4 && r < m / 4 * 4; r += step) {
        float part = at(r, c) + at(r + 1, c);
        for (int64_t k = 2; k < step; ++k) {
          part += at(r + k, c);
        }
        total += part;
      }
      for (; r < m; ++r) {
        total += at(r, c);
      }
      y[c] += alpha * total;
    }
  });
  return result;
}

void axpy(at::Tensor& y, const at::Tensor& x_, double alpha_) {
  check_same(x_, "x", y.sizes(), y);
  TORCH_CHECK(y.scalar_type() == at::kFloat && x_.scalar_type() == at::kFloat &&
                  y.is_contiguous(),
              "y must be float32 and contiguous, x float32, got ", y.scalar_type(), " and ",
              x_.scalar_type());
  const at::Tensor input = x_.contiguous();
  const float alpha = static_cast<float>(alpha_);
  const float* x = input.const_data_ptr<float>();
  float* to = y.mutable_data_ptr<float>();
  const int64_t fused = y.numel() / 32 * 32;
  at::parallel_for(0, y.numel(), 1 << 14, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      // Fused but for a rest of less than 32.
      to[i] = i < fused ? std::fma(alpha, x[i], to[i]) : to[i] + alpha * x[i];
    }
  });
}

template <typename Function>
at::Tensor pointwise(const at::Tensor& input_, const Function& function) {
  TORCH_CHECK(input_.scalar_type() == at::kFloat, "input must be float32, got ",
              input_.scalar_type());
  const at::Tensor input = input_.contiguous();
  at::Tensor output = at::empty_like(input);
  const float* x = input.const_data_ptr<float>();
  float* y = output.mutable_data_ptr<float>();
  at::parallel_for(0, input.numel(), 1 << 12, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      y[i] = function(x[i]);
    }
  });
  return output;
}

at::Tensor exponential(const at::Tensor& input) {
  return pointwise(input, [](float x) { return std::exp(x); });
}

at::Tensor logarithm(const at::Tensor& input) {
  return pointwise(input, [](float x) { return std::log(x); });
}

at::Tensor power(const at::Tensor& input, double exponent) {
  const float e = static_cast<float>(exponent);
  return pointwise(input, [e](float x) { return std::pow(x, e); });
}

}  // namespace

TORCH_LIBRARY_IMPL(pspnet, CPU, m) {
  m.impl("original_gemm", &gemm);
  m.impl("original_sum_rows", &sum_rows);
  m.impl("original_sum_columns", &sum_columns);
  m.impl("original_axpy", &axpy);
  m.impl("original_exp", &exponential);
  m.impl("original_log", &logarithm);
  m.impl("original_pow", &power);
}

}  // namespace pspnet::cpu
