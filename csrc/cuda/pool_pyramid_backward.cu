// Backward pass of average pyramid pooling: all pixels of a cell receive the same share.
#include "pool_cells.h"

namespace pspnet::cuda {
namespace {

// What each pixel of a cell receives, in the original's order of levels and bins.
template <typename T>
__global__ void shares_kernel(Image image, Levels levels, CellRanges rows, CellRanges cols,
                              int cell_rows, int cell_cols, acc_type<T>* values) {
  using acc_t = acc_type<T>;
  const int64_t step = image.channels_last ? image.channels : 1;
  const int64_t count = image.images * image.channels * cell_rows * cell_cols;
  const int64_t index = global_thread();
  if (index >= count) return;
  const Element at = element_of(index, step, cell_rows, cell_cols);
  acc_t sum = 0;
  for (int l = 0; l < levels.count; ++l) {
    const Level& level = levels.at[l];
    for (int i = rows.first[l][at.row]; i < rows.last[l][at.row]; ++i) {
      for (int j = cols.first[l][at.col]; j < cols.last[l][at.col]; ++j) {
        const int64_t bin = ((at.outer * level.rows.outputs + i) * level.cols.outputs + j) * step +
                            at.channel;
        sum += widen(static_cast<const T*>(level.output)[bin]) /
               static_cast<acc_t>(level.rows.range(i).extent * level.cols.range(j).extent);
      }
    }
  }
  values[index] = sum;
}

// Cell of each coordinate, for a block to look up.
__device__ inline void fill_cells(const Cells& cells, uint8_t* cell_of) {
  for (int i = threadIdx.x; i < cells.size(); i += blockDim.x) {
    int cell = 0;
    while (cells.edges[cell + 1] <= i) ++cell;
    cell_of[i] = static_cast<uint8_t>(cell);
  }
}

// A block takes kThreads packs of one plane.
template <typename T, int kPack>
__global__ void plane_spread_kernel(Image image, Cells rows, Cells cols,
                                    const acc_type<T>* values, T* grad_input) {
  using acc_t = acc_type<T>;
  uint8_t* row_cell = shared_memory<uint8_t>();
  uint8_t* col_cell = row_cell + rows.size();
  fill_cells(rows, row_cell);
  fill_cells(cols, col_cell);
  __syncthreads();
  const int64_t plane = blockIdx.x;
  const int width = static_cast<int>(image.width), pixels = static_cast<int>(image.pixels());
  const acc_t* cells = values + plane * rows.count * cols.count;
  for (int64_t first = (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * kPack;
       first < pixels; first += static_cast<int64_t>(gridDim.y) * blockDim.x * kPack) {
    int y = static_cast<int>(first) / width, x = static_cast<int>(first) % width;
    acc_t pack[kPack];
    for (int k = 0; k < kPack; ++k) {
      pack[k] = cells[row_cell[y] * cols.count + col_cell[x]];
      if (++x == width) {
        x = 0;
        if (y + 1 < rows.size()) ++y;
      }
    }
    store_pack<kPack>(pack, grad_input + plane * pixels + first);
  }
}

template <typename T, int kPack>
__global__ void pixel_spread_kernel(Image image, Cells rows, Cells cols,
                                    const acc_type<T>* values, T* grad_input) {
  using acc_t = acc_type<T>;
  const int64_t channel = global_thread() * kPack;
  if (channel >= image.channels) return;
  const int r = blockIdx.y / cols.count, c = blockIdx.y % cols.count;
  for (int64_t n = blockIdx.z; n < image.images; n += gridDim.z) {
    acc_t cell[kPack];
    const int64_t at = (n * rows.count * cols.count + blockIdx.y) * image.channels + channel;
    for (int k = 0; k < kPack; ++k) cell[k] = values[at + k];
    T* target = grad_input + n * image.pixels() * image.channels + channel;
    for (int y = rows.edges[r]; y < rows.edges[r + 1]; ++y) {
      for (int x = cols.edges[c]; x < cols.edges[c + 1]; ++x) {
        store_pack<kPack>(cell, target + (y * image.width + x) * image.channels);
      }
    }
  }
}

}  // namespace

void launch_pyramid_shares(DType dtype, const Image& input, const Levels& levels,
                           const Cells& rows, const Cells& cols, void* values, Stream stream) {
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    const auto kernel = &shares_kernel<T>;
    PSPNET_LAUNCH(kernel,
                  blocks_for(input.images * input.channels * rows.count * cols.count), kThreads, 0,
                  stream, input, levels, ranges_of(levels, rows, true, false),
                  ranges_of(levels, cols, false, false), rows.count, cols.count,
                  static_cast<acc_type<T>*>(values));
  });
}

void launch_pyramid_spread(DType dtype, const Image& input, const Cells& rows, const Cells& cols,
                           const void* values, void* grad_input, Stream stream) {
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    const acc_type<T>* source = static_cast<const acc_type<T>*>(values);
    T* target = static_cast<T*>(grad_input);
    if (input.channels_last) {
      dispatch_packs<T>(packs_of_channels<T>(true, input.channels, target), [&](auto pack) {
        constexpr int kPack = decltype(pack)::value;
        const auto kernel = &pixel_spread_kernel<T, kPack>;
        PSPNET_LAUNCH(kernel, grid_of_cells(input, rows, cols, kPack),
                      threads_for(input.channels / kPack), 0, stream, input, rows, cols, source,
                      target);
      });
      return;
    }
    dispatch_packs<T>(
        input.pixels() % (kPackBytes / sizeof(T)) == 0 && aligned(target), [&](auto pack) {
          constexpr int kPack = decltype(pack)::value;
          const auto kernel = &plane_spread_kernel<T, kPack>;
          const int64_t packs = input.pixels() / kPack;
          const dim3 grid(static_cast<unsigned int>(input.images * input.channels),
                          static_cast<unsigned int>(ceil_div(packs, 4 * kThreads)));
          PSPNET_LAUNCH(kernel, grid, threads_for(packs), input.height + input.width, stream,
                        input, rows, cols, source, target);
        });
  });
}

}  // namespace pspnet::cuda
