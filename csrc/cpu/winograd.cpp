#include <ATen/Functions.h>
#include <torch/library.h>

#include "../winograd_rules.h"
#include "lanes.h"
#include "registers.h"

namespace pspnet::cpu {
namespace {

typedef Register<float> Channels;
constexpr int64_t kChannels = RegisterOf<float>::kCount;

inline Channels load(const float* source) {
  Channels result;
  std::memcpy(&result, source, sizeof(result));
  return result;
}

inline void store(const Channels& value, float* target) {
  std::memcpy(target, &value, sizeof(value));
}

// A matrix in C order, each value in all lanes.
template <int kRows, int kCols>
struct Matrix {
  Channels at[kRows][kCols];
  explicit Matrix(const at::Tensor& tensor) {
    const at::Tensor dense = tensor.contiguous();
    for (int i = 0; i < kRows * kCols; ++i) {
      at[i / kCols][i % kCols] = Channels{} + dense.const_data_ptr<float>()[i];
    }
  }
};

// target[c][r] = sum over j, from the first on, of matrix[r][j] * source[j][c].
template <int kRows, int kInner, int kCols>
inline void product(const Matrix<kRows, kInner>& matrix, const Channels (&source)[kInner][kCols],
                    Channels (&target)[kCols][kRows]) {
  for (int c = 0; c < kCols; ++c) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      Channels sum = matrix.at[r][0] * source[0][c];
#pragma GCC unroll 8
      for (int j = 1; j < kInner; ++j) {
        sum += matrix.at[r][j] * source[j][c];
      }
      target[c][r] = sum;
    }
  }
}

// matrix * square * its transpose.
template <int kRows, int kInner>
inline void sandwich(const Matrix<kRows, kInner>& matrix, const Channels (&square)[kInner][kInner],
                     Channels (&result)[kRows][kRows]) {
  Channels half[kInner][kRows];
  product(matrix, square, half);
  product(matrix, half, result);
}

// Of kInner x kInner pixels; those of 6 begin one step of the dilation before the tile.
template <int kInner>
at::Tensor tiles_of(const at::Tensor& input, const at::Tensor& matrix, int64_t dilation,
                    int64_t first, int64_t count) {
  const WinogradGrid grid = check_winograd(input, "input", dilation, first, count);
  const at::Tensor pixels = input.contiguous(at::MemoryFormat::ChannelsLast);
  const int64_t channels = input.size(1), height = input.size(2), width = input.size(3);
  const at::Tensor tiles = at::empty({count, kWinogradIn * kWinogradIn, channels},
                                     input.options().memory_format(at::MemoryFormat::Contiguous));
  advise_huge_pages(tiles);
  const Matrix<kWinogradIn, kInner> weights(matrix);
  constexpr int64_t kBefore = kInner == kWinogradIn ? 1 : 0;
  const float* source = pixels.const_data_ptr<float>();
  float* target = tiles.mutable_data_ptr<float>();
  const auto zeros = make_buffer<float>(channels);
  std::fill_n(zeros.get(), channels, 0.f);
  at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const WinogradTile tile = grid.tile(first + t);
      const float* at[kInner][kInner];
      for (int i = 0; i < kInner; ++i) {
        for (int j = 0; j < kInner; ++j) {
          const int64_t y = tile.y + (i - kBefore) * dilation;
          const int64_t x = tile.x + (j - kBefore) * dilation;
          const bool inside = y >= 0 && y < height && x >= 0 && x < width;
          at[i][j] = inside ? source + ((tile.image * height + y) * width + x) * channels
                            : zeros.get();
        }
      }
      float* tile_target = target + t * kWinogradIn * kWinogradIn * channels;
      for (int64_t c = 0; c < channels; c += kChannels) {
        Channels square[kInner][kInner], result[kWinogradIn][kWinogradIn];
        for (int i = 0; i < kInner; ++i) {
          for (int j = 0; j < kInner; ++j) {
            square[i][j] = load(at[i][j] + c);
          }
        }
        sandwich(weights, square, result);
        for (int i = 0; i < kWinogradIn; ++i) {
          for (int j = 0; j < kWinogradIn; ++j) {
            store(result[i][j], tile_target + (i * kWinogradIn + j) * channels + c);
          }
        }
      }
    }
  });
  return tiles;
}

at::Tensor winograd_tiles(const at::Tensor& input, const at::Tensor& matrix, int64_t dilation,
                          int64_t first, int64_t count) {
  const bool outputs = matrix.dim() == 2 && matrix.size(1) == kWinogradOut;
  check_winograd_matrix(matrix, kWinogradIn, outputs ? kWinogradOut : kWinogradIn);
  return (outputs ? tiles_of<kWinogradOut> : tiles_of<kWinogradIn>)(input, matrix, dilation, first,
                                                                    count);
}

void winograd_pixels(const at::Tensor& output, const at::Tensor& products,
                     const at::Tensor& matrix, const at::Tensor& bias, int64_t dilation,
                     int64_t first, bool add, bool relu) {
  check_winograd_products(output, products, bias);
  const int64_t count = products.size(0);
  const WinogradGrid grid = check_winograd(output, "output", dilation, first, count);
  check_winograd_matrix(matrix, kWinogradOut, kWinogradIn);
  const at::Tensor dense = products.contiguous(), offsets = bias.contiguous();
  const int64_t channels = output.size(1), height = output.size(2), width = output.size(3);
  const Matrix<kWinogradOut, kWinogradIn> weights(matrix);
  const float* source = dense.const_data_ptr<float>();
  const float* offset = offsets.const_data_ptr<float>();
  float* target = output.mutable_data_ptr<float>();
  at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const WinogradTile tile = grid.tile(first + t);
      const float* tile_source = source + t * kWinogradIn * kWinogradIn * channels;
      for (int64_t c = 0; c < channels; c += kChannels) {
        Channels square[kWinogradIn][kWinogradIn], result[kWinogradOut][kWinogradOut];
        for (int i = 0; i < kWinogradIn; ++i) {
          for (int j = 0; j < kWinogradIn; ++j) {
            square[i][j] = load(tile_source + (i * kWinogradIn + j) * channels + c);
          }
        }
        sandwich(weights, square, result);
        const Channels shift = load(offset + c);
        for (int i = 0; i < kWinogradOut; ++i) {
          for (int j = 0; j < kWinogradOut; ++j) {
            const int64_t y = tile.y + i * dilation, x = tile.x + j * dilation;
            if (y >= height || x >= width) {
              continue;
            }
            float* pixel = target + ((tile.image * height + y) * width + x) * channels + c;
            Channels value = result[i][j] + shift;
            if (add) value += load(pixel);
            // A NaN stays one.
            value = relu ? (value < 0.f ? Channels{} : value) : value;
            store(value, pixel);
          }
        }
      }
    }
  });
}

}  // namespace

TORCH_LIBRARY_IMPL(pspnet, CPU, m) {
  m.impl("winograd_tiles", &winograd_tiles);
  m.impl("winograd_pixels", &winograd_pixels);
}

}  // namespace pspnet::cpu
