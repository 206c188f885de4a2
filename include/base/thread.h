// Threads with names, loops over several cores, and queues with a limit.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

namespace base {

// Shown by ps, top and debuggers; at most 15 characters.
void set_thread_name(const std::string& name);

// What all threads of this process with that name that are alive have used of the processors.
double cpu_seconds_of(const std::string& thread_name);

// The processors this process may run on (affinity mask and cgroup quota respected), at least 1.
int available_processors();

// A fixed set of worker threads for loops. A pool of one runs everything on the calling thread.
// Idle workers sleep.
class ThreadPool {
 public:
  // `thread_count` includes the calling thread; 0 means available_processors().
  explicit ThreadPool(int thread_count);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int thread_count() const;

  // Calls body(begin, end, worker) for disjoint ranges that cover [0, count), each a multiple of
  // `grain` but for the last. The cut depends on count, grain and thread_count() alone, so that
  // sums over ranges are the same in every run. `worker`, below thread_count(), tells apart calls
  // that run at the same time (for scratch memory), not threads. Returns when all calls have
  // returned; an exception of the body is re-thrown here (the lowest worker's, if there are
  // several). One caller at a time, and no loop inside a loop of the same pool.
  using RangeBody = std::function<void(int64_t begin, int64_t end, int worker)>;
  void parallel_for(int64_t count, int64_t grain, const RangeBody& body);

  // Calls body(index, worker) for every index in [0, count); workers take the next index when they
  // are free. For items of unequal cost whose results do not depend on who made them.
  using ItemBody = std::function<void(int64_t index, int worker)>;
  void parallel_items(int64_t count, const ItemBody& body);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// A queue between threads with at most `capacity` entries. close() wakes everybody: push() then
// returns false, pop() drains what is left and then returns nothing.
template <class T>
class BoundedQueue {
 public:
  explicit BoundedQueue(size_t capacity) : capacity_(capacity) {}

  bool push(T value) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return closed_ || items_.size() < capacity_; });
    if (closed_) return false;
    items_.push_back(std::move(value));
    changed_.notify_all();
    return true;
  }

  std::optional<T> pop() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return closed_ || !items_.empty(); });
    if (items_.empty()) return std::nullopt;
    T value = std::move(items_.front());
    items_.pop_front();
    changed_.notify_all();
    return value;
  }

  void close() {
    std::lock_guard lock(mutex_);
    closed_ = true;
    changed_.notify_all();
  }

 private:
  const size_t capacity_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<T> items_;
  bool closed_ = false;
};

}  // namespace base
