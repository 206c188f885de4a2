#include "train/rank_threads.h"

#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <fmt/format.h>
#include <mutex>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/thread.h"

namespace train {

struct RankThreads::State {
  explicit State(const Options& chosen) : options(chosen), is_busy(size_t(chosen.ranks)) {}

  const Options options;
  std::vector<std::thread> threads;

  std::mutex mutex;
  std::condition_variable changed;
  const std::function<void(int)>* body = nullptr;
  int64_t command = 0;        // Counts them.
  std::vector<bool> is_busy;  // By rank, with the command.
  int busy_count = 0;
  bool is_stopping = false;
  std::exception_ptr failure;

  void serve(int rank);
  void work(int rank, const std::function<void(int)>& command_body);
  std::exception_ptr named(int rank, const std::exception_ptr& error) const;
  void fail(int rank, const std::exception_ptr& error);
  void begin(const std::function<void(int)>& command_body);
  bool check(bool was_lost);
  std::string text_of_failure() const;
  void require_all_back(std::unique_lock<std::mutex>& lock, std::chrono::milliseconds limit);
};

void RankThreads::State::serve(int rank) {
  base::set_thread_name(fmt::format("rank-{}", rank));
  if (options.enter) work(rank, options.enter);
  int64_t done = 0;
  std::unique_lock lock(mutex);
  while (true) {
    changed.wait(lock, [&] { return is_stopping || command != done; });
    if (command == done) return;
    done = command;
    const auto* const current = body;
    lock.unlock();
    work(rank, *current);
    lock.lock();
    is_busy[size_t(rank)] = false;
    --busy_count;
    changed.notify_all();
  }
}

void RankThreads::State::work(int rank, const std::function<void(int)>& command_body) {
  try {
    command_body(rank);
  } catch (...) {
    fail(rank, std::current_exception());
  }
}

std::exception_ptr RankThreads::State::named(int rank, const std::exception_ptr& error) const {
  const std::string who =
      options.ranks == 1 ? "" : fmt::format("rank {} of {}: ", rank, options.ranks);
  try {
    std::rethrow_exception(error);
  } catch (const base::Error& e) {
    return std::make_exception_ptr(base::Error(e.code(), who + e.what(), e.hint()));
  } catch (const std::bad_alloc&) {
    return std::make_exception_ptr(base::resource_lost(
        who + "out of memory", "use a smaller model or training.micro_batch_rows"));
  } catch (...) {
    return error;
  }
}

void RankThreads::State::fail(int rank, const std::exception_ptr& error) {
  {
    const std::lock_guard lock(mutex);
    if (failure) return;
    failure = named(rank, error);
    changed.notify_all();
  }
  if (!options.abort) return;
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& e) {
    options.abort(fmt::format("rank {} has failed: {}", rank, e.what()));
  }
}

// REQUIRES for all that follow: locked.

// True if it finds something. Found twice, it is a failure: until then the ranks have time to say
// it themselves, and better.
bool RankThreads::State::check(bool was_lost) {
  if (!options.check) return false;
  try {
    options.check();
    return false;
  } catch (const base::Error&) {
    if (was_lost) failure = std::current_exception();
    return true;
  }
}

std::string RankThreads::State::text_of_failure() const {
  if (!failure) return "the end of the ranks";
  try {
    std::rethrow_exception(failure);
  } catch (const std::exception& e) {
    return e.what();
  }
}

void RankThreads::State::require_all_back(std::unique_lock<std::mutex>& lock,
                                          std::chrono::milliseconds limit) {
  if (changed.wait_for(lock, limit, [&] { return busy_count == 0; })) return;
  std::string stuck;
  for (size_t rank = 0; rank < is_busy.size(); ++rank)
    if (is_busy[rank]) stuck += fmt::format("{}rank {}", stuck.empty() ? "" : ", ", rank);
  const std::string reason =
      fmt::format("{}; {} did not come back within {} ms", text_of_failure(), stuck, limit.count());
  base::log_error("{}: the process ends", reason);
  fmt::print(stderr, "atoll: {}\nHint: start the node again.\n", reason);
  std::fflush(nullptr);
  std::_Exit(int(base::ExitCode::kResourceLost));
}

void RankThreads::State::begin(const std::function<void(int)>& command_body) {
  CHECK(busy_count == 0);
  body = &command_body;
  ++command;
  is_busy.assign(is_busy.size(), true);
  busy_count = options.ranks;
  changed.notify_all();
}

RankThreads::RankThreads(const Options& options) : state_(new State(options)) {
  CHECK(options.ranks >= 1);
  for (int rank = 0; rank < options.ranks; ++rank)
    state_->threads.emplace_back([this, rank] { state_->serve(rank); });
}

RankThreads::~RankThreads() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->is_stopping = true;
    state_->changed.notify_all();
  }
  for (std::thread& thread : state_->threads) thread.join();
}

void RankThreads::run(const std::function<void(int rank)>& body) {
  State& s = *state_;
  std::unique_lock lock(s.mutex);
  s.begin(body);
  const auto is_over = [&] { return s.busy_count == 0 || s.failure; };
  for (bool was_lost = false; !s.changed.wait_for(lock, s.options.check_period, is_over);)
    was_lost = s.check(was_lost);
  if (!s.failure) return;
  s.require_all_back(lock, s.options.patience);
  std::rethrow_exception(std::exchange(s.failure, nullptr));
}

void RankThreads::run_within(std::chrono::milliseconds limit,
                             const std::function<void(int rank)>& body) {
  State& s = *state_;
  std::unique_lock lock(s.mutex);
  s.begin(body);
  s.require_all_back(lock, limit);
  if (s.failure) std::rethrow_exception(std::exchange(s.failure, nullptr));
}

}  // namespace train
