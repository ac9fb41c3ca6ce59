// What Winograd's operators share: which pixels belong to which tile, and what they refuse.
// pspnet_repro/ops/checks.py says the same of fake tensors.
#pragma once

#include "checks.h"

namespace pspnet {

// A tile of 4x4 outputs of a 3x3 kernel reads 6x6 inputs.
constexpr int kWinogradOut = 4;
constexpr int kWinogradIn = 6;
constexpr int64_t kWinogradChannels = 16;

// The first output pixel of a tile; the others follow at steps of the dilation.
struct WinogradTile {
  int64_t image, y, x;
};

// The tiles of a batch: image by image, and for a dilation d each of the d * d images of every
// d-th pixel by itself, row by row; all with the number of tiles that the largest needs.
struct WinogradGrid {
  int64_t dilation, rows, cols;

  WinogradGrid(at::IntArrayRef size, int64_t dilation)
      : dilation(dilation), rows(ceil_div(ceil_div(size[0], dilation), kWinogradOut)),
        cols(ceil_div(ceil_div(size[1], dilation), kWinogradOut)) {}

  int64_t tiles_an_image() const { return dilation * dilation * rows * cols; }

  WinogradTile tile(int64_t number) const {
    const int64_t col = number % cols, row = number / cols % rows;
    const int64_t phase = number / cols / rows;
    const int64_t x = phase % dilation, y = phase / dilation % dilation;
    return {phase / dilation / dilation, y + row * kWinogradOut * dilation,
            x + col * kWinogradOut * dilation};
  }
};

inline WinogradGrid check_winograd(const at::Tensor& image, const char* name, int64_t dilation,
                                   int64_t first, int64_t count) {
  check_image(image, name);
  TORCH_CHECK(image.scalar_type() == at::kFloat, name, " must be float32, got ",
              image.scalar_type());
  TORCH_CHECK(image.size(1) % kWinogradChannels == 0, name, " must have a multiple of ",
              kWinogradChannels, " channels, got ", image.size(1));
  TORCH_CHECK(dilation >= 1 && dilation <= kMaxKernel, "dilation must be 1 to ", kMaxKernel,
              ", got ", dilation);
  const WinogradGrid grid(image.sizes().slice(2), dilation);
  const int64_t tiles = image.size(0) * grid.tiles_an_image();
  TORCH_CHECK(first >= 0 && count >= 0 && first <= tiles && count <= tiles - first,
              "first and count must lie within the ", tiles, " tiles, got ", first, " and ",
              count);
  return grid;
}

inline void check_winograd_matrix(const at::Tensor& matrix, int64_t rows, int64_t cols) {
  TORCH_CHECK(matrix.dim() == 2 && matrix.size(0) == rows && matrix.size(1) == cols &&
                  matrix.scalar_type() == at::kFloat && matrix.device().is_cpu(),
              "matrix must be (", rows, ", ", cols, ") float32 on the CPU, got ",
              matrix.sizes(), ", ", matrix.scalar_type(), " on ", matrix.device());
}

inline void check_winograd_products(const at::Tensor& output, const at::Tensor& products,
                                    const at::Tensor& bias) {
  check_image(output, "output");
  TORCH_CHECK(output.is_contiguous(at::MemoryFormat::ChannelsLast),
              "output must be channels last, got strides ", output.strides());
  TORCH_CHECK(products.dim() == 3 && products.size(1) == kWinogradIn * kWinogradIn &&
                  products.size(2) == output.size(1),
              "products must be (count, ", kWinogradIn * kWinogradIn, ", channels) with the "
              "output's ", output.size(1), " channels, got shape ", products.sizes());
  check_same_dtype(products, "products", output);
  check_same(bias, "bias", {output.size(1)}, output);
  check_same_dtype(bias, "bias", output);
}

}  // namespace pspnet
