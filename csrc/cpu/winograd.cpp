#include <ATen/Functions.h>
#include <torch/library.h>

#include "../winograd_rules.h"
#include "lanes.h"

namespace pspnet::cpu {
namespace {

typedef Vec<float> Channels;
constexpr int64_t kChannels = Lanes<float>::kCount;

// A matrix in C order that loops can unroll over.
template <int kRows, int kCols>
struct Matrix {
  float at[kRows][kCols];
  explicit Matrix(const at::Tensor& tensor) {
    const at::Tensor dense = tensor.contiguous();
    std::memcpy(at, dense.const_data_ptr<float>(), sizeof(at));
  }
};

// target[r][c] = sum over j, from the first on, of matrix[r][j] * source[j][c].
template <int kRows, int kInner, int kCols>
inline void product(const Matrix<kRows, kInner>& matrix, const Channels (&source)[kInner][kCols],
                    Channels (&target)[kRows][kCols]) {
#pragma GCC unroll 8
  for (int c = 0; c < kCols; ++c) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      Channels sum = matrix.at[r][0] * source[0][c];
#pragma GCC unroll 8
      for (int j = 1; j < kInner; ++j) {
        sum += matrix.at[r][j] * source[j][c];
      }
      target[r][c] = sum;
    }
  }
}

// matrix * square * its transpose, transposed: rows and columns come exchanged.
template <int kRows, int kInner>
inline void sandwich(const Matrix<kRows, kInner>& matrix, const Channels (&square)[kInner][kInner],
                     Channels (&result)[kRows][kRows]) {
  Channels half[kRows][kInner];
  product(matrix, square, half);
  Channels turned[kInner][kRows];
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kInner; ++c) {
      turned[c][r] = half[r][c];
    }
  }
  product(matrix, turned, result);
}

at::Tensor winograd_tiles(const at::Tensor& input, const at::Tensor& matrix, int64_t dilation,
                          int64_t first, int64_t count) {
  const WinogradGrid grid = check_winograd(input, "input", dilation, first, count);
  check_winograd_matrix(matrix, kWinogradIn);
  const at::Tensor pixels = input.contiguous(at::MemoryFormat::ChannelsLast);
  const int64_t channels = input.size(1), height = input.size(2), width = input.size(3);
  const at::Tensor tiles = at::empty({count, kWinogradIn * kWinogradIn, channels},
                                     input.options().memory_format(at::MemoryFormat::Contiguous));
  advise_huge_pages(tiles);
  const Matrix<kWinogradIn, kWinogradIn> weights(matrix);
  const float* source = pixels.const_data_ptr<float>();
  float* target = tiles.mutable_data_ptr<float>();
  const auto zeros = make_buffer<float>(channels);
  std::fill_n(zeros.get(), channels, 0.f);
  at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const WinogradTile tile = grid.tile(first + t);
      const float* at[kWinogradIn][kWinogradIn];
      for (int i = 0; i < kWinogradIn; ++i) {
        for (int j = 0; j < kWinogradIn; ++j) {
          // The kernel reaches one step before the tile.
          const int64_t y = tile.y + (i - 1) * dilation, x = tile.x + (j - 1) * dilation;
          const bool inside = y >= 0 && y < height && x >= 0 && x < width;
          at[i][j] = inside ? source + ((tile.image * height + y) * width + x) * channels
                            : zeros.get();
        }
      }
      float* tile_target = target + t * kWinogradIn * kWinogradIn * channels;
      for (int64_t c = 0; c < channels; c += kChannels) {
        Channels square[kWinogradIn][kWinogradIn], result[kWinogradIn][kWinogradIn];
        for (int i = 0; i < kWinogradIn; ++i) {
          for (int j = 0; j < kWinogradIn; ++j) {
            std::memcpy(&square[i][j], at[i][j] + c, sizeof(Channels));
          }
        }
        sandwich(weights, square, result);
        for (int i = 0; i < kWinogradIn; ++i) {
          for (int j = 0; j < kWinogradIn; ++j) {
            std::memcpy(tile_target + (i * kWinogradIn + j) * channels + c, &result[j][i],
                        sizeof(Channels));
          }
        }
      }
    }
  });
  return tiles;
}

void winograd_pixels(const at::Tensor& output, const at::Tensor& products,
                     const at::Tensor& matrix, const at::Tensor& bias, int64_t dilation,
                     int64_t first, bool add, bool relu) {
  check_winograd_products(output, products, bias);
  const int64_t count = products.size(0);
  const WinogradGrid grid = check_winograd(output, "output", dilation, first, count);
  check_winograd_matrix(matrix, kWinogradOut);
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
            std::memcpy(&square[i][j], tile_source + (i * kWinogradIn + j) * channels + c,
                        sizeof(Channels));
          }
        }
        sandwich(weights, square, result);
        Channels shift;
        std::memcpy(&shift, offset + c, sizeof(shift));
        for (int i = 0; i < kWinogradOut; ++i) {
          for (int j = 0; j < kWinogradOut; ++j) {
            const int64_t y = tile.y + i * dilation, x = tile.x + j * dilation;
            if (y >= height || x >= width) {
              continue;
            }
            float* pixel = target + ((tile.image * height + y) * width + x) * channels + c;
            Channels value = result[j][i] + shift;
            if (add) {
              Channels present;
              std::memcpy(&present, pixel, sizeof(present));
              value += present;
            }
            // A NaN stays one.
            value = relu ? (value < 0.f ? Channels{} : value) : value;
            std::memcpy(pixel, &value, sizeof(value));
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
