// Pyramid pooling in one pass over the image (see launchers.h): cells, then levels made of cells.
// Sums of cells are not in the original's order; they differ from it by rounding only.
#include <cfloat>

#include "places.h"
#include "pool_cells.h"

namespace pspnet::cuda {
namespace {

// A sum, or the first maximum (a NaN wins) and its pixel; -1 where nothing exceeds -FLT_MAX.
template <typename acc_t, bool kMax>
struct Reduced {
  acc_t value = kMax ? static_cast<acc_t>(-FLT_MAX) : acc_t(0);
  int32_t pixel = -1;

  __device__ void add(acc_t other, int32_t other_pixel) {
    if constexpr (kMax) {
      const bool nan = value != value, other_nan = other != other;
      const bool equal = other == value || (nan && other_nan);
      if (equal ? other_pixel < pixel : other_nan || (other > value && !nan)) {
        value = other;
        pixel = other_pixel;
      }
    } else {
      value += other;
    }
  }
};

// A block takes `group` rows of cells of one plane: a thread a pack of columns of a row of cells,
// then a thread a cell.
template <typename T, int kPack, bool kMax>
__global__ void plane_cells_kernel(Image image, Cells rows, Cells cols, int group, const T* input,
                                   acc_type<T>* values, int32_t* indices) {
  using acc_t = acc_type<T>;
  const int width = static_cast<int>(image.width), packs = width / kPack;
  acc_t* column_values = shared_memory<acc_t>();
  int32_t* column_pixels = reinterpret_cast<int32_t*>(column_values + group * width);
  const int64_t plane = blockIdx.x;
  const int first = blockIdx.y * group;
  const int count = rows.count - first < group ? rows.count - first : group;
  const T* source = input + plane * image.pixels();
  for (int item = threadIdx.x; item < count * packs; item += blockDim.x) {
    const int r = item / packs, x = item % packs * kPack;
    Reduced<acc_t, kMax> columns[kPack];
#pragma unroll 4
    for (int y = rows.edges[first + r]; y < rows.edges[first + r + 1]; ++y) {
      acc_t pixels[kPack];
      load_pack<kPack>(source + static_cast<int64_t>(y) * width + x, pixels);
      for (int k = 0; k < kPack; ++k) columns[k].add(pixels[k], y * width + x + k);
    }
    for (int k = 0; k < kPack; ++k) {
      column_values[r * width + x + k] = columns[k].value;
      if constexpr (kMax) column_pixels[r * width + x + k] = columns[k].pixel;
    }
  }
  __syncthreads();
  for (int item = threadIdx.x; item < count * cols.count; item += blockDim.x) {
    const int r = item / cols.count, c = item % cols.count;
    Reduced<acc_t, kMax> cell;
    for (int x = cols.edges[c]; x < cols.edges[c + 1]; ++x) {
      cell.add(column_values[r * width + x], kMax ? column_pixels[r * width + x] : 0);
    }
    const int64_t at = (plane * rows.count + first + r) * cols.count + c;
    values[at] = cell.value;
    if constexpr (kMax) indices[at] = cell.pixel;
  }
}

// Channels-last: a thread a pack of channels of one cell.
template <typename T, int kPack, bool kMax>
__global__ void pixel_cells_kernel(Image image, Cells rows, Cells cols, const T* input,
                                   acc_type<T>* values, int32_t* indices) {
  using acc_t = acc_type<T>;
  const int64_t channel = global_thread() * kPack;
  if (channel >= image.channels) return;
  const int r = blockIdx.y / cols.count, c = blockIdx.y % cols.count;
  for (int64_t n = blockIdx.z; n < image.images; n += gridDim.z) {
    Reduced<acc_t, kMax> cell[kPack];
    const T* source = input + n * image.pixels() * image.channels + channel;
    for (int y = rows.edges[r]; y < rows.edges[r + 1]; ++y) {
#pragma unroll 4
      for (int x = cols.edges[c]; x < cols.edges[c + 1]; ++x) {
        const int32_t pixel = y * static_cast<int>(image.width) + x;
        acc_t pixels[kPack];
        load_pack<kPack>(source + pixel * image.channels, pixels);
        for (int k = 0; k < kPack; ++k) cell[k].add(pixels[k], pixel);
      }
    }
    const int64_t at =
        (n * rows.count * cols.count + blockIdx.y) * image.channels + channel;
    acc_t cell_values[kPack];
    int32_t cell_pixels[kPack];
    for (int k = 0; k < kPack; ++k) {
      cell_values[k] = cell[k].value;
      cell_pixels[k] = cell[k].pixel;
    }
    store_pack<kPack>(cell_values, values + at);
    if constexpr (kMax) store_pack<kPack>(cell_pixels, indices + at);
  }
}

// How `lanes` planes, or channels of an image, lie in a combining block's shared memory: side by
// side for channels-last data, else each in a row of its own whose length spreads over the banks.
struct Staging {
  bool channels_last;
  int cells, lanes;
  Divisor<uint32_t> by_lanes, by_cells;

  Staging(bool channels_last_, int cells_, int64_t bytes)
      : channels_last(channels_last_), cells(cells_), lanes(1), by_lanes(1), by_cells(cells_) {
    while (lanes < kWarp && 2 * lanes * (cells | 1) * bytes <= kSharedBytes) lanes *= 2;
    by_lanes = Divisor<uint32_t>(lanes);
  }
  PSPNET_HOST_DEVICE int pitch() const { return lanes > 1 ? cells | 1 : cells; }
  PSPNET_HOST_DEVICE int words() const { return lanes * pitch(); }
  __device__ int at(int lane, int cell) const {
    return channels_last ? cell * lanes + lane : lane * pitch() + cell;
  }
};

// A block takes `lanes` planes, or channels of one image, a thread a bin of one of them.
template <typename T, bool kMax>
__global__ void combine_kernel(Image image, AllBins levels, AxisTable rows, AxisTable cols,
                               Staging staging, const acc_type<T>* values,
                               const int32_t* indices) {
  using acc_t = acc_type<T>;
  acc_t* cell_values = shared_memory<acc_t>();
  int32_t* cell_pixels = reinterpret_cast<int32_t*>(cell_values + staging.words());
  const bool last = staging.channels_last;
  const int lanes = staging.lanes, cells = staging.cells, cell_cols = cols.cells.count;
  const int64_t width = last ? image.channels : image.images * image.channels;
  const int64_t tiles = ceil_div(width, lanes);
  const int64_t outer = last ? blockIdx.x / tiles : 0;
  const int64_t first = (blockIdx.x - outer * tiles) * lanes;
  const int count = static_cast<int>(width - first < lanes ? width - first : lanes);
  for (int item = threadIdx.x; item < lanes * cells; item += blockDim.x) {
    const int major = static_cast<int>(
        (last ? staging.by_lanes : staging.by_cells).quotient(static_cast<uint32_t>(item)));
    const int minor = item - major * (last ? lanes : cells);
    const int lane = last ? minor : major, cell = last ? major : minor;
    if (lane >= count) continue;
    const int64_t source = last ? (outer * cells + cell) * width + first + lane
                                : (first + lane) * cells + cell;
    cell_values[staging.at(lane, cell)] = values[source];
    if constexpr (kMax) cell_pixels[staging.at(lane, cell)] = indices[source];
  }
  __syncthreads();
  int before = 0;  // items of the levels before l
  for (int item = threadIdx.x, l = 0; l < levels.count;) {
    const Bins& level = levels.at[l];
    const int bins = level.count(), rest = item - before;
    if (rest >= bins * lanes) {
      before += bins * lanes;
      ++l;
      continue;
    }
    item += blockDim.x;
    const int lane = last ? rest % lanes : rest / bins;
    const int bin = last ? rest / lanes : rest % bins;
    if (lane >= count) continue;
    const int i = bin / level.cols, j = bin % level.cols;
    Reduced<acc_t, kMax> result;
    for (int r = rows.first[l][i]; r < rows.last[l][i]; ++r) {
#pragma unroll 4
      for (int c = cols.first[l][j]; c < cols.last[l][j]; ++c) {
        const int at = staging.at(lane, r * cell_cols + c);
        result.add(cell_values[at], kMax ? cell_pixels[at] : 0);
      }
    }
    const int64_t target = last ? (outer * bins + bin) * width + first + lane
                                : (first + lane) * bins + bin;
    if constexpr (kMax) {
      level.indices[target] = result.pixel;
    } else {
      result.value /= static_cast<acc_t>(static_cast<int64_t>(rows.extent[l][i]) *
                                         cols.extent[l][j]);
    }
    narrow(result.value, static_cast<T*>(level.output) + target);
  }
}

// Rows of cells that a block's shared memory holds.
template <typename T>
int rows_a_block(int64_t width, const Cells& rows) {
  const int64_t room = kSharedBytes / (width * static_cast<int64_t>(sizeof(acc_type<T>) + 4));
  return static_cast<int>(room < rows.count ? room : rows.count);
}

}  // namespace

bool make_cells(const Levels& levels, const Image& input, DType dtype, Cells* rows, Cells* cols) {
  if (levels.count > kMaxCellLevels || input.images * input.channels >= kMaxBlocks ||
      input.pixels() > INT32_MAX || input.height + input.width > kSharedBytes) {
    return false;
  }
  for (int l = 0; l < levels.count; ++l) {
    const Level& level = levels.at[l];
    if (level.rows.outputs > kMaxCells || level.cols.outputs > kMaxCells) return false;
  }
  bool fits = false;
  dispatch(dtype, [&](auto zero) {
    fits = cut(levels, true, input.height, rows) && cut(levels, false, input.width, cols) &&
           rows_a_block<decltype(zero)>(input.width, *rows) > 0;
  });
  return fits;
}

void launch_pyramid_cells(DType dtype, bool max, const Image& input, const void* data,
                          const Cells& rows, const Cells& cols, void* values, int32_t* indices,
                          Stream stream) {
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    const T* source = static_cast<const T*>(data);
    acc_type<T>* target = static_cast<acc_type<T>*>(values);
    if (input.channels_last) {
      dispatch_packs<T>(pack_of<T>(input.channels, source, target), [&](auto pack) {
        constexpr int kPack = decltype(pack)::value;
        const auto kernel =
            max ? &pixel_cells_kernel<T, kPack, true> : &pixel_cells_kernel<T, kPack, false>;
        PSPNET_LAUNCH(kernel, grid_of_cells(input, rows, cols, kPack),
                      threads_for(input.channels / kPack), 0, stream, input, rows, cols, source,
                      target, indices);
      });
      return;
    }
    const int group = rows_a_block<T>(input.width, rows);
    const int64_t bytes =
        group * input.width * static_cast<int64_t>(sizeof(acc_type<T>) + (max ? 4 : 0));
    const dim3 grid(static_cast<unsigned int>(input.images * input.channels),
                    static_cast<unsigned int>(ceil_div(rows.count, group)));
    dispatch_packs<T>(pack_of<T>(input.width, source), [&](auto pack) {
      constexpr int kPack = decltype(pack)::value;
      const auto kernel =
          max ? &plane_cells_kernel<T, kPack, true> : &plane_cells_kernel<T, kPack, false>;
      PSPNET_LAUNCH(kernel, grid, threads_for(group * input.width / kPack), bytes, stream, input,
                    rows, cols, group, source, target, indices);
    });
  });
}

void launch_pyramid_combine(DType dtype, bool max, const Image& input, const Levels& levels,
                            const Cells& rows, const Cells& cols, const void* values,
                            const int32_t* indices, Stream stream) {
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    const int64_t bytes = sizeof(acc_type<T>) + (max ? sizeof(int32_t) : 0);
    const Staging staging(input.channels_last, rows.count * cols.count, bytes);
    const int64_t blocks =
        input.channels_last ? input.images * ceil_div(input.channels, staging.lanes)
                            : ceil_div(input.images * input.channels, staging.lanes);
    const auto kernel = max ? &combine_kernel<T, true> : &combine_kernel<T, false>;
    PSPNET_LAUNCH(kernel, blocks_for(blocks, 1), kThreads, staging.words() * bytes, stream, input,
                  AllBins(levels), table_of(levels, rows, true, true),
                  table_of(levels, cols, false, true), staging,
                  static_cast<const acc_type<T>*>(values), indices);
  });
}

}  // namespace pspnet::cuda
