// Looks for collectives that do not end, and for what NCCL finds out by itself.
#include <algorithm>
#include <fmt/format.h>

#include "base/thread.h"
#include "cuda/nccl_node.h"

namespace cuda {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

void NcclNode::watch() {
  base::set_thread_name("nccl-watchdog");
  const milliseconds period = std::clamp(timeout_ / 10, milliseconds{1}, milliseconds{100});
  std::unique_lock lock(watch_mutex_);
  while (!watch_changed_.wait_for(lock, period, [&] { return is_closing_; })) {
    lock.unlock();
    if (has_failed_) return;
    if (const auto trouble = find_trouble()) return fail(*trouble);
    lock.lock();
  }
}

std::optional<std::string> NcclNode::find_trouble() {
  for (const auto& lane : lanes_) {
    // Its thread may hang in NCCL: then the others say so.
    std::unique_lock lock(lane->mutex, std::try_to_lock);
    if (!lock.owns_lock() || lane->comm == nullptr) continue;
    if (auto trouble = look_at(*lane, lock)) return trouble;
  }
  return std::nullopt;
}

// Takes collectives that have ended out of the queue. REQUIRES: locked, and there is a
// communicator.
std::optional<std::string> NcclNode::look_at(Lane& lane, std::unique_lock<std::mutex>& lock) {
  ncclResult_t state = ncclSuccess;
  const ncclResult_t result = api_.comm_get_async_error(lane.comm, &state);
  if (result != ncclSuccess) state = result;
  if (state != ncclSuccess && state != ncclInProgress) {
    return fmt::format("rank {}, {}: {}", lane.rank, newest(lane), failure(lane, state).reason);
  }
  for (; lane.first < lane.last; ++lane.first) {
    Queued& queued = lane.queue[size_t(lane.first % kQueuedMax)];
    const cudaError_t end = cudaEventQuery(queued.end);
    if (end == cudaSuccess) continue;
    if (end != cudaErrorNotReady) {
      return fmt::format("rank {}, {} {}: {}", lane.rank, queued.operation, queued.number,
                         cudaGetErrorString(end));
    }
    // What was queued before it may take as long as it likes.
    if (!queued.begun && cudaEventQuery(queued.begin) == cudaSuccess)
      queued.begun = steady_clock::now();
    if (!queued.begun || steady_clock::now() - *queued.begun < timeout_) return std::nullopt;
    const Queued late = queued;
    lock.unlock();
    auto trouble = blame(late.operation, late.number);
    lock.lock();
    return trouble;
  }
  return std::nullopt;
}

// What its GPU is at, or has done last. REQUIRES: locked.
std::string NcclNode::newest(const Lane& lane) {
  if (lane.last == 0) return "before the first collective";
  const int64_t at = lane.first < lane.last ? lane.first : lane.last - 1;
  const Queued& queued = lane.queue[size_t(at % kQueuedMax)];
  return fmt::format("{} {}", queued.operation, queued.number);
}

// Who is late with a collective: the ranks whose GPUs have not come to it, if there are any, or
// else those in which it has not ended. Nobody if it has just ended after all.
std::optional<std::string> NcclNode::blame(const char* operation, int64_t number) {
  std::string absent, unfinished;
  for (const auto& lane : lanes_) {
    const std::unique_lock lock(lane->mutex, std::try_to_lock);
    if (!lock.owns_lock()) continue;
    for (int64_t i = lane->first; i < lane->last; ++i) {
      const Queued& queued = lane->queue[size_t(i % kQueuedMax)];
      if (queued.number != number || cudaEventQuery(queued.end) == cudaSuccess) continue;
      std::string& list = cudaEventQuery(queued.begin) == cudaSuccess ? unfinished : absent;
      list += fmt::format("{}rank {}", list.empty() ? "" : ", ", lane->rank);
    }
  }
  if (!absent.empty()) {
    return fmt::format("{} {}: the GPU of {} did not come to it within {} ms", operation, number,
                       absent, timeout_.count());
  }
  if (unfinished.empty()) return std::nullopt;
  return fmt::format("{} {}: not done within {} ms by the GPU of {}", operation, number,
                     timeout_.count(), unfinished);
}

}  // namespace cuda
