// Pyramid pooling in one pass over the image (see launchers.h): cells, then levels made of cells.
// Sums of cells are not in the original's order; they differ from it by rounding only.
#include <cfloat>

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
    for (int k = 0; k < kPack; ++k) {
      values[at + k] = cell[k].value;
      if constexpr (kMax) indices[at + k] = cell[k].pixel;
    }
  }
}

template <typename T, bool kMax>
__global__ void combine_kernel(Image image, Levels levels, CellRanges rows, CellRanges cols,
                               int cell_rows, int cell_cols, const acc_type<T>* values,
                               const int32_t* indices) {
  using acc_t = acc_type<T>;
  const int64_t planes = image.images * image.channels;
  const int64_t step = image.channels_last ? image.channels : 1;
  int64_t index = global_thread();
  int l = 0;
  for (; l < levels.count; ++l) {
    const int64_t count = planes * levels.at[l].rows.outputs * levels.at[l].cols.outputs;
    if (index < count) break;
    index -= count;
  }
  if (l == levels.count) return;
  const Level& level = levels.at[l];
  const Element at = element_of(index, step, static_cast<int>(level.rows.outputs),
                                static_cast<int>(level.cols.outputs));
  Reduced<acc_t, kMax> result;
  for (int r = rows.first[l][at.row]; r < rows.last[l][at.row]; ++r) {
    for (int c = cols.first[l][at.col]; c < cols.last[l][at.col]; ++c) {
      const int64_t cell = ((at.outer * cell_rows + r) * cell_cols + c) * step + at.channel;
      result.add(values[cell], kMax ? indices[cell] : 0);
    }
  }
  if constexpr (kMax) {
    level.indices[index] = result.pixel;
  } else {
    const AxisRange y = level.rows.range(at.row), x = level.cols.range(at.col);
    result.value /= static_cast<acc_t>(y.extent * x.extent);
  }
  narrow(result.value, static_cast<T*>(level.output) + index);
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
      dispatch_packs<T>(packs_of_channels<T>(true, input.channels, source), [&](auto pack) {
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
    dispatch_packs<T>(
        input.width % (kPackBytes / sizeof(T)) == 0 && aligned(source), [&](auto pack) {
          constexpr int kPack = decltype(pack)::value;
          const auto kernel =
              max ? &plane_cells_kernel<T, kPack, true> : &plane_cells_kernel<T, kPack, false>;
          PSPNET_LAUNCH(kernel, grid, threads_for(group * input.width / kPack), bytes, stream,
                        input, rows, cols, group, source, target, indices);
        });
  });
}

void launch_pyramid_combine(DType dtype, bool max, const Image& input, const Levels& levels,
                            const Cells& rows, const Cells& cols, const void* values,
                            const int32_t* indices, Stream stream) {
  int64_t outputs = 0;
  for (int l = 0; l < levels.count; ++l) {
    outputs += input.images * input.channels * levels.at[l].rows.outputs *
               levels.at[l].cols.outputs;
  }
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    const auto kernel = max ? &combine_kernel<T, true> : &combine_kernel<T, false>;
    PSPNET_LAUNCH(kernel, blocks_for(outputs), kThreads, 0, stream, input, levels,
                  ranges_of(levels, rows, true, true), ranges_of(levels, cols, false, true),
                  rows.count, cols.count, static_cast<const acc_type<T>*>(values), indices);
  });
}

}  // namespace pspnet::cuda
