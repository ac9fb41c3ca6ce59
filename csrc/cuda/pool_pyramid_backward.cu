// Backward pass of average pyramid pooling: all pixels of a cell receive the same share.
#include "pool_cells.h"

namespace pspnet::cuda {
namespace {

// What each pixel of cell (r, c) receives, in the original's order of levels and bins. A bin has
// `step` numbers, the first of them at `channel`; `outer` counts planes, or images.
template <int kPack, typename T>
__device__ void share_of(const AllBins& levels, const AxisTable& rows, const AxisTable& cols, int r,
                         int c, int64_t outer, int64_t channel, int64_t step,
                         acc_type<T>* share) {
  for (int k = 0; k < kPack; ++k) share[k] = 0;
  for (int l = 0; l < levels.count; ++l) {
    const Bins& level = levels.at[l];
    const T* grads = static_cast<const T*>(level.output) + outer * level.count() * step + channel;
    for (int i = rows.first[l][r]; i < rows.last[l][r]; ++i) {
      for (int j = cols.first[l][c]; j < cols.last[l][c]; ++j) {
        acc_type<T> grad[kPack];
        load_pack<kPack>(grads + (i * level.cols + j) * step, grad);
        const auto area = static_cast<acc_type<T>>(static_cast<int64_t>(rows.extent[l][i]) *
                                                   cols.extent[l][j]);
        for (int k = 0; k < kPack; ++k) share[k] += grad[k] / area;
      }
    }
  }
}

// A block takes `group` rows of cells of one plane: a thread a cell's share, then a thread a pack of
// columns of a row of cells.
template <typename T, int kPack>
__global__ void plane_backward_kernel(Image image, AllBins levels, AxisTable rows, AxisTable cols,
                                      int group, T* grad_input) {
  using acc_t = acc_type<T>;
  const int width = static_cast<int>(image.width), packs = width / kPack;
  const int cell_cols = cols.cells.count;
  acc_t* shares = shared_memory<acc_t>();
  uint8_t* col_cell = reinterpret_cast<uint8_t*>(shares + group * cell_cols);
  const int64_t plane = blockIdx.x;
  const int first = blockIdx.y * group;
  const int count = rows.cells.count - first < group ? rows.cells.count - first : group;
  for (int c = threadIdx.x; c < cell_cols; c += blockDim.x) {
    for (int x = cols.cells.edges[c]; x < cols.cells.edges[c + 1]; ++x) {
      col_cell[x] = static_cast<uint8_t>(c);
    }
  }
  for (int item = threadIdx.x; item < count * cell_cols; item += blockDim.x) {
    const int r = item / cell_cols;
    acc_t share;
    share_of<1, T>(levels, rows, cols, first + r, item - r * cell_cols, plane, 0, 1, &share);
    shares[item] = share;
  }
  __syncthreads();
  T* target = grad_input + plane * image.pixels();
  for (int item = threadIdx.x; item < count * packs; item += blockDim.x) {
    const int r = item / packs, x = (item - r * packs) * kPack;
    acc_t pack[kPack];
    for (int k = 0; k < kPack; ++k) pack[k] = shares[r * cell_cols + col_cell[x + k]];
    for (int y = rows.cells.edges[first + r]; y < rows.cells.edges[first + r + 1]; ++y) {
      store_pack<kPack>(pack, target + static_cast<int64_t>(y) * width + x);
    }
  }
}

// Channels-last: a thread a pack of channels of one cell.
template <typename T, int kPack>
__global__ void pixel_backward_kernel(Image image, AllBins levels, AxisTable rows, AxisTable cols,
                                      T* grad_input) {
  const int64_t channel = global_thread() * kPack;
  if (channel >= image.channels) return;
  const int r = blockIdx.y / cols.cells.count, c = blockIdx.y % cols.cells.count;
  for (int64_t n = blockIdx.z; n < image.images; n += gridDim.z) {
    acc_type<T> share[kPack];
    share_of<kPack, T>(levels, rows, cols, r, c, n, channel, image.channels, share);
    T* target = grad_input + n * image.pixels() * image.channels + channel;
    for (int y = rows.cells.edges[r]; y < rows.cells.edges[r + 1]; ++y) {
      for (int x = cols.cells.edges[c]; x < cols.cells.edges[c + 1]; ++x) {
        store_pack<kPack>(share, target + (y * image.width + x) * image.channels);
      }
    }
  }
}

}  // namespace

void launch_pyramid_backward(DType dtype, const Image& input, const Levels& levels,
                             const Cells& rows, const Cells& cols, void* grad_input,
                             Stream stream) {
  const AllBins bins(levels);
  const AxisTable row_table = table_of(levels, rows, true, false);
  const AxisTable col_table = table_of(levels, cols, false, false);
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    T* target = static_cast<T*>(grad_input);
    if (input.channels_last) {
      int64_t run = input.channels;
      for (int l = 0; l < levels.count; ++l) {
        run = pack_of<T>(run, static_cast<const T*>(levels.at[l].output));
      }
      dispatch_packs<T>(pack_of<T>(run, target), [&](auto pack) {
        constexpr int kPack = decltype(pack)::value;
        const auto kernel = &pixel_backward_kernel<T, kPack>;
        PSPNET_LAUNCH(kernel, grid_of_cells(input, rows, cols, kPack),
                      threads_for(input.channels / kPack), 0, stream, input, bins, row_table,
                      col_table, target);
      });
      return;
    }
    dispatch_packs<T>(pack_of<T>(input.width, target), [&](auto pack) {
      constexpr int kPack = decltype(pack)::value;
      const auto kernel = &plane_backward_kernel<T, kPack>;
      const int64_t packs = input.width / kPack;
      const int64_t enough = ceil_div(kThreads, packs);
      const int group = static_cast<int>(enough < rows.count ? enough : rows.count);
      const dim3 grid(static_cast<unsigned int>(input.images * input.channels),
                      static_cast<unsigned int>(ceil_div(rows.count, group)));
      PSPNET_LAUNCH(kernel, grid, threads_for(group * packs),
                    group * cols.count * static_cast<int64_t>(sizeof(acc_type<T>)) + input.width,
                    stream, input, bins, row_table, col_table, group, target);
    });
  });
}

}  // namespace pspnet::cuda
