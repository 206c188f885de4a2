// NCCL with one host thread and one communicator per rank, all in one process.
//
// Two things can stop such a process for ever, and most of this class is about them. A kernel of
// NCCL's occupies its GPU until those of all others have started: so a collective is queued only
// when the threads of all ranks have come, and nobody goes on before it is queued on all GPUs
// (backend::Meeting). And a rank, a GPU or a link that is lost leaves the others' kernels waiting:
// so NCCL's calls return at once and are polled, a watchdog looks for collectives that do not end,
// and whatever goes wrong anywhere aborts the communicators of all ranks.
//
// Files: nccl_node.cpp (beginning, end, collectives), nccl_watchdog.cpp, nccl_communicator.cpp
// (one rank's view).
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "backend/meeting.h"
#include "cuda/device.h"
#include "cuda/nccl_api.h"

namespace cuda {

// How far a rank's host may run ahead of its GPU, in collectives: their events are made at the
// start, because making one in the middle can synchronise GPUs.
inline constexpr int kQueuedMax = 64;

// A collective in a rank's stream.
struct Queued {
  cudaEvent_t begin = nullptr, end = nullptr;
  const char* operation = "";
  int64_t number = 0;  // The same on all ranks.
  // When the stream was seen to have reached it.
  std::optional<std::chrono::steady_clock::time_point> begun;
};

// Of one GPU.
struct Lane {
  int rank = 0, device = 0;
  int64_t count = 0;  // Collectives so far. Of the rank's thread.

  // The rest: by several threads, none of which waits while it holds it.
  std::mutex mutex;
  ncclComm_t comm = nullptr;  // Null before its initialisation and after its end.
  std::array<Queued, kQueuedMax> queue;
  int64_t first = 0, last = 0;  // queue[i % kQueuedMax] for first <= i < last.
};

// All ranks. A function that takes a rank or a lane is called by that rank's thread, if it is not
// said otherwise.
class NcclNode : public std::enable_shared_from_this<NcclNode> {
 public:
  NcclNode(const NcclApi& api, const std::vector<int>& devices, std::chrono::milliseconds timeout);
  ~NcclNode();
  NcclNode(const NcclNode&) = delete;
  NcclNode& operator=(const NcclNode&) = delete;

  int rank_count() const { return meeting_.rank_count(); }

  // Makes the communicators and starts the watchdog. Throws resource_lost. Once.
  void start();
  // Ends the communicators. Any number of times; never throws, never hangs.
  void close();

  using Call = std::function<ncclResult_t(ncclComm_t comm, cudaStream_t stream)>;
  void collective(int rank, const backend::Proposal& proposal, const backend::Stream& stream,
                  const Call& call);
  void barrier(int rank);
  // By any thread: aborts what is queued on all GPUs. Only the first reason counts.
  void fail(const std::string& reason);
  void require_working() { meeting_.check(); }  // By any thread: throws the reason if there is one.

 private:
  // Each by a thread of its own.
  void initialise(Lane& lane, const ncclUniqueId& id);
  void finalise(Lane& lane);
  void abort_lane(Lane& lane);
  bool on_threads(std::chrono::milliseconds patience, const std::function<void(Lane&)>& body);

  void meet(int rank, const backend::Proposal& proposal);
  void part(int rank);
  base::Result<void> enqueue(Lane& lane, const char* operation, cudaStream_t stream,
                             const Call& call);
  base::Result<void> look_back(Lane& lane);
  base::Result<void> run(Lane& lane, cudaStream_t stream, const Call& call);
  base::Result<void> settle(Lane& lane);
  base::Failure failure(const Lane& lane, ncclResult_t result) const;

  // The watchdog's.
  void watch();
  std::optional<std::string> find_trouble();
  std::optional<std::string> look_at(Lane& lane, std::unique_lock<std::mutex>& lock);
  static std::string newest(const Lane& lane);
  std::optional<std::string> blame(const char* operation, int64_t number);

  const NcclApi& api_;
  const std::chrono::milliseconds timeout_;
  backend::Meeting meeting_;
  std::vector<std::unique_ptr<Lane>> lanes_;
  std::atomic<bool> has_failed_ = false;

  std::mutex close_mutex_;
  std::mutex watch_mutex_;
  std::condition_variable watch_changed_;
  bool is_closing_ = false;
  std::thread watchdog_;
};

}  // namespace cuda
