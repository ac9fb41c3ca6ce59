// The step of the original's solver, one launch for many tensors.
#include "packs.h"

namespace pspnet::cuda {
namespace {

constexpr int64_t kChunk = kThreads * 16;  // elements of a block

template <typename T, int kPack>
__global__ void sgd_kernel(SgdTensors tensors, SgdStep<T> step) {
  const int64_t block = blockIdx.x;
  const auto k = first_that(tensors.count, [&](int64_t i) { return block < tensors.last[i]; });
  const int64_t elements = tensors.elements[k], fused = step.fused(elements);
  const int64_t begin = (block - (k > 0 ? tensors.last[k - 1] : 0)) * kChunk;
  const int64_t end = begin + kChunk < elements ? begin + kChunk : elements;
  const T* grads = static_cast<const T*>(tensors.grads[k]);
  T* params = static_cast<T*>(tensors.params[k]);
  T* buffers = static_cast<T*>(tensors.buffers[k]);
  for (int64_t i = begin + threadIdx.x * kPack; i < end; i += blockDim.x * kPack) {
    if (i + kPack <= end) {
      T grad[kPack], weight[kPack], buffer[kPack];
      load_pack<kPack>(grads + i, grad);
      load_pack<kPack>(params + i, weight);
      load_pack<kPack>(buffers + i, buffer);
#pragma unroll
      for (int v = 0; v < kPack; ++v) step(i + v < fused, grad[v], weight + v, buffer + v);
      store_pack<kPack>(weight, params + i);
      store_pack<kPack>(buffer, buffers + i);
    } else {
      for (int64_t j = i; j < end; ++j) step(j < fused, grads[j], params + j, buffers + j);
    }
  }
}

}  // namespace

void launch_sgd(DType dtype, SgdTensors tensors, const SgdRule& rule, Stream stream) {
  int64_t blocks = 0;
  bool whole = true;
  for (int k = 0; k < tensors.count; ++k) {
    blocks += ceil_div(tensors.elements[k], kChunk);
    tensors.last[k] = blocks;
    for (const void* data : {tensors.grads[k], static_cast<const void*>(tensors.params[k]),
                             static_cast<const void*>(tensors.buffers[k])}) {
      whole = whole && aligned(static_cast<const char*>(data));
    }
  }
  if (blocks == 0) return;
  dispatch_wide(dtype, [&](auto zero) {
    using T = decltype(zero);
    const auto kernel = whole ? &sgd_kernel<T, kPackBytes / sizeof(T)> : &sgd_kernel<T, 1>;
    PSPNET_LAUNCH(kernel, static_cast<unsigned int>(blocks), kThreads, 0, stream, tensors,
                  SgdStep<T>(rule));
  });
}

}  // namespace pspnet::cuda
