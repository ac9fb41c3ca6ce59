// The arithmetic of the original's CPU program: the matrix products and sums of its BLAS (OpenBLAS,
// one thread, the kernels for processors with AVX2) and the C library's functions. Each number
// keeps their order of sums and their fused multiply-adds, on any processor.
#include <ATen/Functions.h>
#include <torch/library.h>

#include <cmath>
#include <optional>

#include "../checks.h"
#include "original_gemm.h"

namespace pspnet::cpu {
namespace {

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
