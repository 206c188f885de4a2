#include "emulation/fibers.h"

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <sys/mman.h>
#include <vector>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

#include "base/thread.h"

// void switch_fiber(void** from, void* to): saves the callee-saved registers and the stack pointer
// of the caller in *from, and goes on where `to` was saved (System V ABI of x86-64).
extern "C" void atoll_switch_fiber(void** from, void* to);
asm(R"(
.text
.globl atoll_switch_fiber
.type atoll_switch_fiber, @function
atoll_switch_fiber:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size atoll_switch_fiber, .-atoll_switch_fiber
)");

namespace emulation {
namespace {

constexpr size_t kStackBytes = 64 * 1024;
constexpr int kWarp = 32;
constexpr size_t kCanaryBytes = 64;
constexpr int kCanary = 0xa5;

// On a fiber or a thread of the pool a test framework's handler of SIGABRT could wait for ever.
[[noreturn]] void die(const char* what) {
  std::fprintf(stderr, "emulated kernel: %s\n", what);
  std::signal(SIGABRT, SIG_DFL);
  std::abort();
}

// Fibers never return, so AddressSanitizer would think of what lay on their stacks as still alive.
void unpoison([[maybe_unused]] const void* memory, [[maybe_unused]] size_t byte_count) {
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(memory, byte_count);
#endif
}

struct Barrier {
  int arrived = 0;
  uint64_t generation = 0;
  int running = 0;  // Threads that have not ended.

  // CUDA counts threads that have ended as arrived.
  void release_if_complete() {
    if (arrived == 0 || arrived < running) return;
    arrived = 0;
    ++generation;
  }
};

struct Warp {
  Barrier barrier;
  // By the parity of the exchange: nobody writes a set again before all have read it.
  std::array<std::array<uint64_t, kWarp>, 2> slots{};
};

struct Fiber {
  void* stack_pointer = nullptr;
  Index3 thread;
  int number = 0;  // In the block.
  bool is_done = false;
  const Barrier* waits_for = nullptr;
  uint64_t generation = 0;  // Of the barrier when it began to wait.
  uint64_t exchange_count = 0;
  uint64_t vote_count = 0;

  bool can_run() const {
    return !is_done && (waits_for == nullptr || waits_for->generation != generation);
  }
};

// One OS thread that runs blocks.
class Worker {
 public:
  static Worker& current() {
    static thread_local Worker worker;
    return worker;
  }
  ~Worker() {
    if (stacks_ != nullptr) munmap(stacks_, stack_bytes_);
  }

  void run_block(Index3 block, Size3 grid_size, Size3 block_size, size_t shared_bytes,
                 const std::function<void()>& kernel, const Settings& settings);

  const Place& place() const { return place_; }
  void* shared() { return shared_.get(); }
  Fiber& fiber() { return *running_; }
  Warp& warp() { return warps_[size_t(running_->number / kWarp)]; }
  Barrier& block_barrier() { return block_barrier_; }
  std::array<bool, 3>& votes() { return votes_; }
  void wait(Barrier& barrier);

 private:
  static void enter();
  void prepare(Fiber& fiber, int number);
  bool run_if_possible(Fiber& fiber, size_t& left);
  bool run_warp(size_t first, size_t& left);
  void run_fibers(const Settings& settings);
  void resume(Fiber& fiber);
  void yield() { atoll_switch_fiber(&running_->stack_pointer, scheduler_); }

  Place place_;
  std::unique_ptr<std::byte[]> shared_;
  std::vector<Fiber> fibers_;
  std::vector<Warp> warps_;
  Barrier block_barrier_;
  std::array<bool, 3> votes_{};
  std::byte* stacks_ = nullptr;
  size_t stack_bytes_ = 0;
  void* scheduler_ = nullptr;
  Fiber* running_ = nullptr;
  const std::function<void()>* kernel_ = nullptr;
};

void Worker::enter() {
  Worker& worker = current();
  (*worker.kernel_)();
  Fiber& fiber = *worker.running_;
  fiber.is_done = true;
  for (Barrier* barrier : {&worker.block_barrier_, &worker.warp().barrier}) {
    --barrier->running;
    barrier->release_if_complete();
  }
  worker.yield();
  die("a thread that has ended runs again");
}

// So that the first switch "returns" into enter(): from the top downwards a null word, which keeps
// the alignment that the ABI expects at a function's entry, the address, six saved registers.
void Worker::prepare(Fiber& fiber, int number) {
  auto** top = reinterpret_cast<void**>(stacks_ + (size_t(number) + 1) * kStackBytes);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(&enter);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  fiber = {.stack_pointer = top};
  fiber.number = number;
  const auto n = unsigned(number);
  const Size3& size = place_.block_size;
  fiber.thread = {n % size.x, n / size.x % size.y, n / (size.x * size.y)};
}

void Worker::run_block(Index3 block, Size3 grid_size, Size3 block_size, size_t shared_bytes,
                       const std::function<void()>& kernel, const Settings& settings) {
  place_ = {.thread = {}, .block = block, .block_size = block_size, .grid_size = grid_size};
  kernel_ = &kernel;
  const auto thread_count = size_t(block_size.count());
  if (stack_bytes_ < thread_count * kStackBytes) {
    if (stacks_ != nullptr) munmap(stacks_, stack_bytes_);
    stack_bytes_ = thread_count * kStackBytes;
    void* const memory = mmap(nullptr, stack_bytes_, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) die("no memory for stacks");
    stacks_ = static_cast<std::byte*>(memory);
  }
  // Of the exact size, so that AddressSanitizer sees what lies behind it; without it a canary does.
  shared_ = std::make_unique<std::byte[]>(shared_bytes + kCanaryBytes);
  std::memset(shared_.get(), 0xff, shared_bytes);
  std::memset(shared_.get() + shared_bytes, kCanary, kCanaryBytes);

  fibers_.resize(thread_count);
  warps_.assign((thread_count + kWarp - 1) / kWarp, {});
  block_barrier_ = {.running = int(thread_count)};
  votes_ = {};
  for (size_t i = 0; i < thread_count; ++i) {
    prepare(fibers_[i], int(i));
    ++warps_[i / kWarp].barrier.running;
  }
  run_fibers(settings);
  unpoison(stacks_, stack_bytes_);
  for (size_t i = 0; i < kCanaryBytes; ++i) {
    if (shared_[shared_bytes + i] != std::byte{kCanary}) die("a write behind the shared memory");
  }
}

bool Worker::run_if_possible(Fiber& fiber, size_t& left) {
  if (!fiber.can_run()) return false;
  resume(fiber);
  if (fiber.is_done) --left;
  return true;
}

// As far as it can go without the other warps.
bool Worker::run_warp(size_t first, size_t& left) {
  const size_t end = std::min(first + size_t(kWarp), fibers_.size());
  bool has_run = false;
  for (bool is_moving = true; is_moving; has_run |= is_moving) {
    is_moving = false;
    for (size_t i = first; i < end; ++i) is_moving |= run_if_possible(fibers_[i], left);
  }
  return has_run;
}

void Worker::run_fibers(const Settings& settings) {
  std::vector<size_t> turns(fibers_.size());
  std::iota(turns.begin(), turns.end(), 0);
  if (settings.order == Order::kReverse) std::ranges::reverse(turns);
  std::mt19937_64 random(settings.seed + place_.block.x + 1000003 * place_.block.y);
  size_t left = fibers_.size();
  while (left > 0) {
    if (settings.order == Order::kShuffled) std::ranges::shuffle(turns, random);
    bool has_run = false;
    for (const size_t turn : turns) {
      if (settings.order == Order::kGreedy) {
        if (turn % kWarp == 0) has_run |= run_warp(turn, left);
      } else {
        has_run |= run_if_possible(fibers_[turn], left);
      }
    }
    if (!has_run) die("divergent barrier: some threads wait for others that never come");
  }
}

void Worker::resume(Fiber& fiber) {
  fiber.waits_for = nullptr;
  place_.thread = fiber.thread;
  running_ = &fiber;
  atoll_switch_fiber(&scheduler_, fiber.stack_pointer);
}

void Worker::wait(Barrier& barrier) {
  Fiber& fiber = *running_;
  fiber.generation = barrier.generation;
  ++barrier.arrived;
  barrier.release_if_complete();
  if (barrier.generation != fiber.generation) return;
  fiber.waits_for = &barrier;
  yield();
}

Settings& settings() {
  static Settings settings;
  return settings;
}

void require_whole_warp(unsigned mask) {
  if (mask != 0xffffffffu) die("a shuffle or vote of less than a whole warp");
}

base::ThreadPool& pool() {
  static base::ThreadPool pool(base::available_processors());
  return pool;
}

}  // namespace

void set_order(const Settings& order) {
  settings() = order;
}

void run_grid(Size3 blocks, Size3 threads, size_t shared_bytes,
              const std::function<void()>& kernel) {
  if (threads.count() > 1024) die("more than 1024 threads in a block");
  if (shared_bytes > 48 * 1024) die("more than 48 KiB of shared memory");
  const Settings now = settings();
  std::vector<int64_t> turns(size_t(blocks.count()));
  std::iota(turns.begin(), turns.end(), 0);
  if (now.order == Order::kReverse) std::ranges::reverse(turns);
  if (now.order == Order::kShuffled) std::ranges::shuffle(turns, std::mt19937_64(now.seed));
  const auto run = [&](int64_t turn, int) {
    const auto n = unsigned(turns[size_t(turn)]);
    const Index3 block{n % blocks.x, n / blocks.x % blocks.y, n / (blocks.x * blocks.y)};
    Worker::current().run_block(block, blocks, threads, shared_bytes, kernel, now);
  };
  static std::mutex mutex;  // Launches of several ranks' threads take turns.
  const std::lock_guard lock(mutex);
  if (turns.size() == 1) return run(0, 0);
  pool().parallel_items(int64_t(turns.size()), run);
}

const Place& place() {
  return Worker::current().place();
}

void* shared_memory() {
  return Worker::current().shared();
}

void block_barrier() {
  Worker& worker = Worker::current();
  worker.wait(worker.block_barrier());
}

bool block_any(bool predicate) {
  Worker& worker = Worker::current();
  const uint64_t count = worker.fiber().vote_count++;
  if (predicate) worker.votes()[count % 3] = true;
  worker.wait(worker.block_barrier());
  // The vote before this one has been read by all, and its place is the next but one's.
  worker.votes()[(count + 2) % 3] = false;
  return worker.votes()[count % 3];
}

void warp_barrier(unsigned mask) {
  require_whole_warp(mask);
  Worker& worker = Worker::current();
  worker.wait(worker.warp().barrier);
}

uint64_t warp_exchange(unsigned mask, uint64_t value, int source_lane) {
  require_whole_warp(mask);
  Worker& worker = Worker::current();
  Warp& warp = worker.warp();
  if (warp.barrier.running != kWarp) die("a shuffle in a warp with threads that have ended");
  auto& slots = warp.slots[worker.fiber().exchange_count++ % 2];
  slots[size_t(lane())] = value;
  worker.wait(warp.barrier);
  return slots[size_t(source_lane)];
}

int lane() {
  return Worker::current().fiber().number % kWarp;
}

}  // namespace emulation
