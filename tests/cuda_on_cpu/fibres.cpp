// The scheduler behind cuda_on_cpu.h.
#include <ucontext.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda_on_cpu.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace cuda_on_cpu {
namespace {

constexpr size_t kStackBytes = 128 << 10;
constexpr int kPoison = 0xff;  // floats of these bytes are NaN

Order g_order = Order::kAscending;
uint64_t g_seed = 0;

enum class State { kReady, kAtBarrier, kInWarp, kDone };

struct Fibre {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[kStackBytes]};
  void* fake_stack = nullptr;  // the sanitizer's
  State state = State::kDone;
  const void* place = nullptr;
  dim3 index;
  // Of the exchange that the fibre waits for.
  unsigned int mask = 0;
  int source = 0;
  size_t bytes = 0;
  const void* value = nullptr;
  void* result = nullptr;
};

struct Block {
  std::vector<std::unique_ptr<Fibre>> fibres;
  ucontext_t scheduler;
  void* scheduler_fake_stack = nullptr;
  const void* scheduler_stack = nullptr;
  size_t scheduler_stack_bytes = 0;
  Fibre* running = nullptr;
  const std::function<void()>* kernel = nullptr;
  unsigned char* shared = nullptr;
};

thread_local Block g_block;

[[noreturn]] void fail(const std::string& what, const Fibre& fibre) {
  throw std::runtime_error("kernel: " + what + ", thread (" + std::to_string(fibre.index.x) +
                           ", " + std::to_string(fibre.index.y) + ", " +
                           std::to_string(fibre.index.z) + ") of block (" +
                           std::to_string(blockIdx.x) + ", " + std::to_string(blockIdx.y) + ", " +
                           std::to_string(blockIdx.z) + ")");
}

// Both ends of a switch tell the address sanitizer which stack is in use.
void before_switch([[maybe_unused]] void** fake_stack, [[maybe_unused]] const void* stack,
                   [[maybe_unused]] size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(fake_stack, stack, bytes);
#endif
}
void after_switch([[maybe_unused]] void* fake_stack, [[maybe_unused]] const void** stack,
                  [[maybe_unused]] size_t* bytes) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake_stack, stack, bytes);
#endif
}

void to_scheduler(bool for_good) {
  Block& block = g_block;
  Fibre& fibre = *block.running;
  before_switch(for_good ? nullptr : &fibre.fake_stack, block.scheduler_stack,
                block.scheduler_stack_bytes);
  swapcontext(&fibre.context, &block.scheduler);
  after_switch(fibre.fake_stack, &block.scheduler_stack, &block.scheduler_stack_bytes);
}

void fibre_main() {
  Block& block = g_block;
  after_switch(nullptr, &block.scheduler_stack, &block.scheduler_stack_bytes);
  (*block.kernel)();
  block.running->state = State::kDone;
  to_scheduler(true);
  std::abort();
}

void resume(Fibre& fibre) {
  Block& block = g_block;
  block.running = &fibre;
  threadIdx = fibre.index;
  before_switch(&block.scheduler_fake_stack, fibre.stack.get(), kStackBytes);
  swapcontext(&block.scheduler, &fibre.context);
  after_switch(block.scheduler_fake_stack, nullptr, nullptr);
}

// The lanes of a fibre's warp; null beyond the block's last thread.
std::vector<Fibre*> warp_of(size_t number, size_t threads) {
  std::vector<Fibre*> lanes(kWarpSize, nullptr);
  const size_t first = number / kWarpSize * kWarpSize;
  for (size_t k = first; k < std::min(first + kWarpSize, threads); ++k) {
    lanes[k - first] = g_block.fibres[k].get();
  }
  return lanes;
}

// Makes the exchange that fibre `number` waits for if every lane that it names has come.
bool release_warp(size_t number, size_t threads) {
  const std::vector<Fibre*> lanes = warp_of(number, threads);
  const Fibre& first = *g_block.fibres[number];
  for (int lane = 0; lane < kWarpSize; ++lane) {
    if ((first.mask >> lane & 1u) == 0) continue;
    const Fibre* other = lanes[lane];
    if (other == nullptr || other->state == State::kDone) {
      fail("a warp exchange names lane " + std::to_string(lane) + ", which is not there", first);
    }
    if (other->state == State::kAtBarrier) {
      fail("a warp exchange waits for lane " + std::to_string(lane) + ", which is at a barrier",
           first);
    }
    if (other->state != State::kInWarp) return false;
    if (other->place != first.place || other->mask != first.mask) {
      fail("lanes of a warp exchange values in different places", *other);
    }
  }
  std::vector<std::vector<unsigned char>> brought(kWarpSize);
  for (int lane = 0; lane < kWarpSize; ++lane) {
    if ((first.mask >> lane & 1u) == 0) continue;
    const auto* value = static_cast<const unsigned char*>(lanes[lane]->value);
    brought[lane].assign(value, value + lanes[lane]->bytes);
  }
  for (int lane = 0; lane < kWarpSize; ++lane) {
    if ((first.mask >> lane & 1u) == 0) continue;
    Fibre& fibre = *lanes[lane];
    if ((first.mask >> fibre.source & 1u) == 0) {
      fail("a warp exchange reads lane " + std::to_string(fibre.source) + " outside its mask",
           fibre);
    }
    std::memcpy(fibre.result, brought[fibre.source].data(), fibre.bytes);
    fibre.state = State::kReady;
  }
  return true;
}

void release_barrier(size_t threads) {
  const Fibre* first = nullptr;
  for (size_t k = 0; k < threads; ++k) {
    if (g_block.fibres[k]->state == State::kAtBarrier) first = g_block.fibres[k].get();
  }
  for (size_t k = 0; k < threads; ++k) {
    Fibre& fibre = *g_block.fibres[k];
    if (fibre.state == State::kDone) fail("a thread left before a barrier of its block", fibre);
    if (fibre.place != first->place) fail("threads wait at different barriers", fibre);
    fibre.state = State::kReady;
  }
}

void run_block(size_t threads, const std::vector<size_t>& order) {
  for (size_t k = 0; k < threads; ++k) {
    Fibre& fibre = *g_block.fibres[k];
    getcontext(&fibre.context);
    fibre.context.uc_stack.ss_sp = fibre.stack.get();
    fibre.context.uc_stack.ss_size = kStackBytes;
    fibre.context.uc_link = nullptr;
    makecontext(&fibre.context, fibre_main, 0);
    fibre.fake_stack = nullptr;
    fibre.state = State::kReady;
    const unsigned int n = static_cast<unsigned int>(k);
    fibre.index = dim3(n % blockDim.x, n / blockDim.x % blockDim.y,
                       n / blockDim.x / blockDim.y);
  }
  for (;;) {
    bool ran = false;
    for (const size_t k : order) {
      if (g_block.fibres[k]->state != State::kReady) continue;
      resume(*g_block.fibres[k]);
      ran = true;
    }
    if (ran) continue;
    size_t waiting = 0;
    for (size_t k = 0; k < threads; ++k) {
      const State state = g_block.fibres[k]->state;
      waiting += state == State::kAtBarrier;
      if (state == State::kInWarp) ran = release_warp(k, threads) || ran;
    }
    if (ran) continue;
    if (waiting == 0) return;
    release_barrier(threads);
  }
}

std::vector<size_t> make_order(size_t count, uint64_t salt) {
  std::vector<size_t> order(count);
  std::iota(order.begin(), order.end(), size_t{0});
  if (g_order == Order::kDescending) std::reverse(order.begin(), order.end());
  if (g_order == Order::kRandom) {
    std::mt19937_64 generator(g_seed * 0x9e3779b97f4a7c15ull + salt);
    std::shuffle(order.begin(), order.end(), generator);
  }
  return order;
}

}  // namespace

void set_order(Order order, uint64_t seed) {
  g_order = order;
  g_seed = seed;
}

int64_t max_index() { return g_order == Order::kDescending ? -1 : INT32_MAX; }

void run(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& kernel) {
  const size_t threads = static_cast<size_t>(block.x) * block.y * block.z;
  const size_t blocks = static_cast<size_t>(grid.x) * grid.y * grid.z;
  if (threads == 0 || threads > 1024 || blocks == 0 || grid.y > 65535 || grid.z > 65535 ||
      grid.x > 0x7fffffffu || shared_bytes > (48u << 10)) {
    throw std::runtime_error("kernel: no card takes " + std::to_string(blocks) + " blocks of " +
                             std::to_string(threads) + " threads with " +
                             std::to_string(shared_bytes) + " bytes");
  }
  while (g_block.fibres.size() < threads) g_block.fibres.push_back(std::make_unique<Fibre>());
  blockDim = block;
  gridDim = grid;
  g_block.kernel = &kernel;
  const std::unique_ptr<unsigned char, void (*)(void*)> shared(
      static_cast<unsigned char*>(std::malloc(std::max<size_t>(shared_bytes, 1))), std::free);
  g_block.shared = shared.get();
  for (const size_t b : make_order(blocks, 0)) {
    blockIdx = dim3(static_cast<unsigned int>(b % grid.x),
                    static_cast<unsigned int>(b / grid.x % grid.y),
                    static_cast<unsigned int>(b / grid.x / grid.y));
    std::memset(g_block.shared, kPoison, shared_bytes);
    run_block(threads, make_order(threads, b + 1));
  }
}

void* shared_memory_of_block() { return g_block.shared; }

void wait_for_block(const void* place) {
  Fibre& fibre = *g_block.running;
  fibre.state = State::kAtBarrier;
  fibre.place = place;
  to_scheduler(false);
}

void exchange(unsigned int mask, const void* value, void* result, size_t bytes, int source,
              const void* place) {
  Fibre& fibre = *g_block.running;
  fibre.state = State::kInWarp;
  fibre.mask = mask;
  fibre.source = source;
  fibre.bytes = bytes;
  fibre.value = value;
  fibre.result = result;
  fibre.place = place;
  to_scheduler(false);
}

}  // namespace cuda_on_cpu

// For ctypes: 0 ascending, 1 descending, 2 random.
extern "C" void cuda_on_cpu_set_order(int order, uint64_t seed) {
  cuda_on_cpu::set_order(static_cast<cuda_on_cpu::Order>(order), seed);
}
