// Index arithmetic of kernels that take one pack of an image a thread: in 32 bits where these will do.
#pragma once

#include "launch.h"

namespace pspnet::cuda {

// index / size by a multiplication, for a size that is known at the launch and indices up to 2^31 - 1;
// by divisions where Index is int64_t.
template <typename Index>
struct Divisor {
  Index size;
  explicit Divisor(int64_t size_) : size(size_) {}
  __device__ Index quotient(Index index) const { return index / size; }
};
template <>
struct Divisor<uint32_t> {
  uint32_t size, factor, shift = 0;
  explicit Divisor(int64_t size_) : size(static_cast<uint32_t>(size_)) {
    while ((int64_t{1} << shift) < size_) ++shift;
    factor = static_cast<uint32_t>(
        (uint64_t{1} << 32) * ((uint64_t{1} << shift) - static_cast<uint64_t>(size_)) /
            static_cast<uint64_t>(size_) + 1);
  }
  __device__ uint32_t quotient(uint32_t index) const {
    return (static_cast<uint32_t>(static_cast<uint64_t>(index) * factor >> 32) + index) >> shift;
  }
};

// body(Index{}) for the type that counts to `items`.
template <typename Body>
void dispatch_index(int64_t items, const Body& body) {
  if (items <= max_index()) {
    body(uint32_t{});
  } else {
    body(int64_t{});
  }
}

// Where the item-th pack of a dense tensor lies: image and channel for channels-last data, plane and
// 0 otherwise.
template <typename Index>
struct Place {
  Index outer, channel, row, col;
};
template <typename Index>
struct Places {
  Index items;
  int pack;
  Divisor<Index> packs, cols, rows;
  Places(const Image& image, int pack_)
      : items(static_cast<Index>(image.images * image.channels * image.pixels() / pack_)),
        pack(pack_), packs(image.channels_last ? image.channels / pack_ : 1), cols(image.width),
        rows(image.height) {}
  __device__ Place<Index> at(Index item) const {
    const Index pixel = packs.quotient(item);
    const Index row = cols.quotient(pixel);
    const Index outer = rows.quotient(row);
    return {outer, (item - pixel * packs.size) * pack, row - outer * rows.size,
            pixel - row * cols.size};
  }
};

}  // namespace pspnet::cuda
