// The thread pool.
//
// Every worker has a mailbox of its own. A loop puts one ticket into the mailbox of each worker
// that has a share in it and wakes nobody else, so workers do not queue up behind one lock. Whoever
// takes the ticket out runs the share: when the caller has done its own, it takes back the tickets
// of workers that have not come yet, so a short loop, or one on a busy machine, never waits for a
// thread that is not running. Who does wait spins for a moment (matrix products follow each other
// within microseconds) and then sleeps.
#include "base/thread.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <filesystem>
#include <fstream>
#include <limits>
#include <pthread.h>
#include <sched.h>
#include <sstream>
#include <system_error>
#include <thread>
#include <utility>
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
    if (ready()) return;
    if (may_spin && spin_until(ready)) return;
    std::unique_lock lock(mutex_);
    while (true) {
      asleep_.store(true);
      if (ready()) break;
      changed_.wait(lock);
    }
    asleep_.store(false);
  }

  // Call after making ready() true. All of this is sequentially consistent: either this one sees
  // that somebody sleeps, or the sleeper, which looks once more after having said so, sees that it
  // is ready. The first to wake it clears the mark, so that a sleeper that takes its time is not
  // woken again and again.
  void wake() {
    if (!asleep_.load() || !asleep_.exchange(false)) return;
    // Once this has the lock, the sleeper has given it up, which is when it hears.
    { std::lock_guard lock(mutex_); }
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
  for (; path.starts_with('/') && path != "/"; path.resize(path.rfind('/'))) {
    quota = std::min(quota, cgroup_processors("/sys/fs/cgroup" + path));
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

double cpu_seconds_of(const std::string& thread_name) {
  int64_t nanoseconds = 0;
  std::error_code gone;  // A thread may end at any time.
  for (const auto& thread : std::filesystem::directory_iterator("/proc/self/task", gone)) {
    std::string name;
    int64_t used = 0;
    std::getline(std::ifstream(thread.path() / "comm"), name);
    std::ifstream(thread.path() / "schedstat") >> used;
    if (name == thread_name) nanoseconds += used;
  }
  return double(nanoseconds) * 1e-9;
}

int available_processors() {
  const double quota = std::max(1.0, cgroup_quota());
  return int(std::min(quota, double(std::max(1, affinity_processors()))));
}

struct ThreadPool::State {
  using Share = std::function<void(int worker)>;

  // Aligned so that posting to one worker does not disturb its neighbours.
  struct alignas(64) Worker {
    std::atomic<bool> has_ticket = false;
    WaitingPlace place;
    std::exception_ptr exception;
    std::thread thread;
  };

  explicit State(int thread_count)
      : workers(size_t(thread_count)), may_spin(thread_count <= available_processors()) {
    try {
      for (int i = 1; i < thread_count; ++i) {
        workers[size_t(i)].thread = std::thread([this, i] { work(i); });
      }
    } catch (const std::system_error& error) {
      stop();
      throw resource_lost(fmt::format("cannot start {} threads: {}", thread_count, error.what()),
                          "raise the limit of processes (ulimit -u) or use fewer threads");
    }
  }

  ~State() { stop(); }

  void stop() {
    stopping = true;
    for (Worker& worker : workers) post(worker);
    for (Worker& worker : workers) {
      if (worker.thread.joinable()) worker.thread.join();
    }
  }

  static void post(Worker& worker) {
    worker.has_ticket = true;
    worker.place.wake();
  }

  void work(int index) {
    set_thread_name(fmt::format("pool-{}", index));
    Worker& self = workers[size_t(index)];
    while (true) {
      self.place.wait(may_spin, [&] { return self.has_ticket.load(); });
      if (stopping) return;
      if (!self.has_ticket.exchange(false)) continue;  // The caller was faster.
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

  // Calls next_share(worker) once for each worker in [0, share_count). Worker 0 is the caller; the
  // others are whoever takes their ticket, so `worker` tells apart calls that run at the same time,
  // not threads.
  void run(int share_count, const Share& next_share) {
    CHECK(!in_loop.exchange(true), "a loop inside a loop, or two callers, on one pool");
    share = &next_share;
    unfinished = share_count - 1;
    for (int i = 1; i < share_count; ++i) post(workers[size_t(i)]);
    run_share(0);
    // The last one was woken last and is the likeliest not to have come.
    for (int i = share_count - 1; i > 0; --i) {
      if (!workers[size_t(i)].has_ticket.exchange(false)) continue;
      run_share(i);
      unfinished.fetch_sub(1);
    }
    caller_place.wait(may_spin, [&] { return unfinished.load() == 0; });
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
  const Share* share =
      nullptr;  // Written while there are no tickets; whoever takes one may read it.
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
