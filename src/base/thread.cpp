// The thread pool.
//
// Every worker has a mailbox of its own. A loop posts one ticket to each worker that has a share in
// it and to nobody else, so a short loop wakes few threads, and workers do not queue up behind one
// lock. Who waits, worker or caller, spins for a moment (matrix products follow each other within
// microseconds) and then sleeps.
#include "base/thread.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <fstream>
#include <limits>
#include <pthread.h>
#include <sched.h>
#include <sstream>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/math.h"

namespace base {
namespace {

// About the time that putting a thread to sleep and waking it again takes: never more than twice
// the best cost.
constexpr auto kSpinTime = std::chrono::microseconds(20);

void pause_processor() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

template <class Ready>
bool spin_until(const Ready& ready) {
  const auto deadline = std::chrono::steady_clock::now() + kSpinTime;
  do {
    for (int i = 0; i < 32; ++i) {
      if (ready()) return true;
      pause_processor();
    }
  } while (std::chrono::steady_clock::now() < deadline);
  return false;
}

// The place where one thread waits until another one says so.
class WaitingPlace {
 public:
  template <class Ready>
  void wait(bool may_spin, const Ready& ready) {
    if (may_spin && spin_until(ready)) return;
    std::unique_lock lock(mutex_);
    asleep_.store(true);
    changed_.wait(lock, ready);
    asleep_.store(false);
  }

  // Call after making ready() true. Both sides use sequentially consistent operations: either this
  // one sees the sleeper, or the sleeper, which looks once more after having said that it sleeps,
  // sees that it is ready.
  void wake() {
    if (!asleep_.load()) return;
    std::lock_guard lock(mutex_);
    changed_.notify_one();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::atomic<bool> asleep_ = false;
};

// Range `index` of `range_count` over `count` items, cut at multiples of `grain`, as even as that
// allows.
struct ItemRange {
  int64_t begin;
  int64_t end;
};
ItemRange cut(int64_t count, int64_t grain, int64_t range_count, int64_t index) {
  const int64_t block_count = div_ceil(count, grain);
  const int64_t share = block_count / range_count;
  const int64_t larger_ranges = block_count % range_count;
  const int64_t begin = index * share + std::min(index, larger_ranges);
  const int64_t end = begin + share + (index < larger_ranges ? 1 : 0);
  return {begin * grain, std::min(count, end * grain)};
}

// The processors that one cgroup v2 folder grants: "max 100000" or "quota period", in microseconds.
double cgroup_processors(const std::string& folder) {
  std::ifstream file(folder + "/cpu.max");
  std::string quota;
  double period = 0;
  if (!(file >> quota >> period) || quota == "max" || period <= 0) {
    return std::numeric_limits<double>::infinity();
  }
  std::istringstream number(quota);
  double microseconds = 0;
  if (!(number >> microseconds)) return std::numeric_limits<double>::infinity();
  return microseconds / period;
}

// The tightest quota on the way from this process's cgroup up to the root.
double cgroup_quota() {
  std::ifstream file("/proc/self/cgroup");
  std::string path;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("0::")) path = line.substr(3);
  }
  double quota = std::numeric_limits<double>::infinity();
  while (!path.empty() && path != "/") {
    quota = std::min(quota, cgroup_processors("/sys/fs/cgroup" + path));
    path.resize(path.rfind('/'));
  }
  return std::min(quota, cgroup_processors("/sys/fs/cgroup"));
}

int affinity_processors() {
  // The kernel refuses masks smaller than its own, whose size it does not tell.
  for (int processor_limit = 1024; processor_limit <= 1 << 20; processor_limit *= 2) {
    std::vector<cpu_set_t> mask(size_t(processor_limit) / CPU_SETSIZE);
    const size_t mask_bytes = mask.size() * sizeof(cpu_set_t);
    if (sched_getaffinity(0, mask_bytes, mask.data()) == 0) {
      return CPU_COUNT_S(mask_bytes, mask.data());
    }
  }
  return int(std::thread::hardware_concurrency());
}

}  // namespace

void set_thread_name(const std::string& name) {
  pthread_setname_np(pthread_self(), name.substr(0, 15).c_str());
}

int available_processors() {
  const double quota = std::max(1.0, cgroup_quota());
  return int(std::min(quota, double(std::max(1, affinity_processors()))));
}

struct ThreadPool::State {
  using Share = std::function<void(int worker)>;

  // Aligned so that posting to one worker does not disturb its neighbours.
  struct alignas(64) Worker {
    std::atomic<int64_t> posted = 0;  // Rises by one for each loop that this worker has a share in.
    WaitingPlace place;
    std::exception_ptr exception;
    std::thread thread;
  };

  explicit State(int thread_count)
      : workers(size_t(thread_count)), may_spin(thread_count <= available_processors()) {
    for (int i = 1; i < thread_count; ++i) {
      workers[size_t(i)].thread = std::thread([this, i] { work(i); });
    }
  }

  ~State() {
    stopping = true;
    for (Worker& worker : workers) post(worker);
    for (Worker& worker : workers) {
      if (worker.thread.joinable()) worker.thread.join();
    }
  }

  static void post(Worker& worker) {
    worker.posted.fetch_add(1);
    worker.place.wake();
  }

  void work(int index) {
    set_thread_name(fmt::format("pool-{}", index));
    Worker& self = workers[size_t(index)];
    for (int64_t done = 0;; ++done) {
      self.place.wait(may_spin, [&] { return self.posted.load() != done; });
      if (stopping) return;
      run_share(index);
      if (unfinished.fetch_sub(1) == 1) caller_place.wake();
    }
  }

  void run_share(int index) {
    try {
      (*share)(index);
    } catch (...) {
      workers[size_t(index)].exception = std::current_exception();
    }
  }

  // Calls next_share(worker) once for each worker in [0, share_count); the caller is worker 0.
  void run(int share_count, const Share& next_share) {
    CHECK(!in_loop.exchange(true), "a loop inside a loop, or two callers, on one pool");
    share = &next_share;
    unfinished = share_count - 1;
    for (int i = 1; i < share_count; ++i) post(workers[size_t(i)]);
    run_share(0);
    if (unfinished.load() > 0) {
      caller_place.wait(may_spin, [&] { return unfinished.load() == 0; });
    }
    share = nullptr;
    in_loop = false;
    rethrow_first(share_count);
  }

  void rethrow_first(int share_count) {
    std::exception_ptr first;
    for (int i = share_count - 1; i >= 0; --i) {
      auto exception = std::exchange(workers[size_t(i)].exception, nullptr);
      if (exception) first = std::move(exception);
    }
    if (first) std::rethrow_exception(first);
  }

  std::vector<Worker> workers;  // Number 0 is the caller, without a thread.
  const bool may_spin;  // Threads without a processor of their own only get in each other's way.
  std::atomic<bool> in_loop = false;
  std::atomic<bool> stopping = false;
  const Share* share = nullptr;  // Written by the caller while no worker has a ticket.
  std::atomic<int> unfinished = 0;
  WaitingPlace caller_place;
};

ThreadPool::ThreadPool(int thread_count) {
  CHECK(thread_count >= 0, "{} threads", thread_count);
  state_ = std::make_unique<State>(thread_count == 0 ? available_processors() : thread_count);
}

ThreadPool::~ThreadPool() = default;

int ThreadPool::thread_count() const {
  return int(state_->workers.size());
}

void ThreadPool::parallel_for(int64_t count, int64_t grain, const RangeBody& body) {
  CHECK(count >= 0 && grain > 0, "count {}, grain {}", count, grain);
  if (count == 0) return;
  const int range_count = int(std::min<int64_t>(thread_count(), div_ceil(count, grain)));
  const auto share = [&](int worker) {
    const ItemRange range = cut(count, grain, range_count, worker);
    body(range.begin, range.end, worker);
  };
  state_->run(range_count, std::ref(share));  // By reference: no allocation.
}

void ThreadPool::parallel_items(int64_t count, const ItemBody& body) {
  CHECK(count >= 0, "count {}", count);
  if (count == 0) return;
  std::atomic<int64_t> next = 0;
  const auto share = [&](int worker) {
    try {
      for (int64_t index; (index = next.fetch_add(1)) < count;) body(index, worker);
    } catch (...) {
      next = count;  // The loop has failed: the others need not go on.
      throw;
    }
  };
  state_->run(int(std::min<int64_t>(thread_count(), count)), std::ref(share));
}

}  // namespace base
