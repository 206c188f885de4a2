// A grid of threads on a processor. One block runs at a time on an OS thread; each of its threads
// is a fiber with a stack of its own, which runs until its next barrier. So a kernel's code runs
// unchanged, and what is undefined on a GPU is made to show:
//   - the order in which fibers and blocks run is forwards, backwards, shuffled by a seed, or
//     greedy: each warp as far as it can go alone, so that it meets what others have not read yet;
//   - shared memory is filled with 0xff (NaN) before each block, and nothing may be written behind;
//   - a barrier that some threads never reach, and shuffles of less than a whole warp, end the
//     program with a message instead of hanging.
// It does not find missing waits between streams, and says nothing about speed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace emulation {

struct Index3 {
  unsigned x = 0, y = 0, z = 0;
};
struct Size3 {
  unsigned x = 1, y = 1, z = 1;
  int64_t count() const { return int64_t(x) * y * z; }
};

enum class Order { kForward, kReverse, kShuffled, kGreedy };
struct Settings {
  Order order = Order::kForward;
  uint64_t seed = 1;  // Of kShuffled.
};
// For the launches that follow, of all OS threads.
void set_order(const Settings& settings);

// Runs `kernel` once for every thread of the grid.
void run_grid(Size3 blocks, Size3 threads, size_t shared_bytes,
              const std::function<void()>& kernel);

// --- For the running kernel thread.

struct Place {
  Index3 thread, block;
  Size3 block_size, grid_size;
};
const Place& place();
void* shared_memory();
void block_barrier();
// True if `predicate` holds for any thread of the block. A barrier.
bool block_any(bool predicate);
void warp_barrier(unsigned mask);
// The `value` of the lane with this number, which has called it as well.
uint64_t warp_exchange(unsigned mask, uint64_t value, int source_lane);
int lane();

}  // namespace emulation
