#include "cuda/nccl_node.h"

#include <algorithm>
#include <fmt/format.h>

#include "base/log.h"
#include "base/thread.h"
#include "cuda/check.h"

namespace cuda {

using backend::Proposal;
using backend::Stream;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

// What tearing down may take. Whoever is not back by then is left behind.
constexpr milliseconds kTearDownMax{10'000};

// What waits for threads that may never return.
struct Latch {
  std::mutex mutex;
  std::condition_variable changed;
  size_t running = 0;
};

}  // namespace

NcclNode::NcclNode(const NcclApi& api, const std::vector<int>& devices, milliseconds timeout)
    : api_(api), timeout_(timeout), meeting_(int(devices.size()), timeout) {
  for (const int device : devices) {
    lanes_.push_back(std::make_unique<Lane>());
    lanes_.back()->rank = int(lanes_.size()) - 1;
    lanes_.back()->device = device;
  }
}

NcclNode::~NcclNode() {
  for (const auto& lane : lanes_) {
    for (const Queued& queued : lane->queue) {
      if (queued.begin != nullptr) cudaEventDestroy(queued.begin);
      if (queued.end != nullptr) cudaEventDestroy(queued.end);
    }
  }
}

// --- Threads that may be left behind.

// Calls body(lane) for all lanes, each on a thread of its own: NCCL's initialisation and its end
// are meetings of all ranks too. False if they are not all back in time; they are then left to
// themselves.
bool NcclNode::on_threads(milliseconds patience, const std::function<void(Lane&)>& body) {
  const auto latch = std::make_shared<Latch>();
  latch->running = lanes_.size();
  for (const auto& lane : lanes_) {
    std::thread([self = shared_from_this(), latch, body, &lane = *lane] {
      base::set_thread_name("nccl");
      body(lane);
      const std::lock_guard lock(latch->mutex);
      --latch->running;
      latch->changed.notify_all();
    }).detach();
  }
  std::unique_lock lock(latch->mutex);
  return latch->changed.wait_for(lock, patience, [&] { return latch->running == 0; });
}

// --- Beginning and end.

void NcclNode::start() {
  ncclUniqueId id{};
  if (const ncclResult_t result = api_.get_unique_id(&id); result != ncclSuccess) {
    throw base::resource_lost(fmt::format("NCCL does not start: {}", api_.get_error_string(result)),
                              "Set NCCL_DEBUG=INFO to see why.");
  }
  // Each gives up by itself after the timeout; this one is for calls that do not return.
  if (!on_threads(timeout_ + kTearDownMax, [this, id](Lane& lane) { initialise(lane, id); }))
    fail(fmt::format("NCCL did not start within {} ms", (timeout_ + kTearDownMax).count()));
  meeting_.check();
  watchdog_ = std::thread([this] { watch(); });
}

void NcclNode::initialise(Lane& lane, const ncclUniqueId& id) {
  try {
    select_device(lane.device);
    for (Queued& queued : lane.queue) {
      for (cudaEvent_t* event : {&queued.begin, &queued.end})
        check(cudaEventCreateWithFlags(event, cudaEventDisableTiming), "making an event");
    }
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    std::unique_lock lock(lane.mutex);
    const ncclResult_t result =
        api_.comm_init_rank_config(&lane.comm, rank_count(), id, lane.rank, &config);
    base::Result<void> done;
    if (result != ncclSuccess && result != ncclInProgress) done = failure(lane, result);
    lock.unlock();
    if (done) done = settle(lane);
    if (done) return;
    fail(fmt::format("rank {}, starting NCCL: {}", lane.rank, done.reason()));
    abort_lane(lane);  // Others may have failed, and aborted all, before there was this one.
  } catch (const base::Error& error) {
    fail(fmt::format("rank {}, starting NCCL: {}", lane.rank, error.what()));
  }
}

void NcclNode::close() {
  const std::lock_guard closing(close_mutex_);
  {
    const std::lock_guard lock(watch_mutex_);
    if (is_closing_) return;
    is_closing_ = true;
    watch_changed_.notify_all();
  }
  if (watchdog_.joinable()) watchdog_.join();
  meeting_.abort("the node's communicators have been closed");
  if (has_failed_) return;
  const milliseconds patience = std::min(timeout_, kTearDownMax);
  if (!on_threads(patience, [this](Lane& lane) { finalise(lane); }))
    fail("NCCL did not end in time");
}

// Waits for what is still queued.
void NcclNode::finalise(Lane& lane) {
  cudaSetDevice(lane.device);
  const auto call = [&](ncclComm_t comm, cudaStream_t) { return api_.comm_finalize(comm); };
  if (const auto done = run(lane, nullptr, call); !done) {
    base::log_warning("rank {}, ending NCCL: {}", lane.rank, done.reason());
    return abort_lane(lane);
  }
  const std::lock_guard lock(lane.mutex);
  if (lane.comm == nullptr) return;
  api_.comm_destroy(lane.comm);
  lane.comm = nullptr;
}

void NcclNode::abort_lane(Lane& lane) {
  cudaSetDevice(lane.device);
  ncclComm_t comm = nullptr;
  {
    // Whoever holds it is inside a call of NCCL's that should have returned at once.
    const auto deadline = steady_clock::now() + timeout_;
    std::unique_lock lock(lane.mutex, std::try_to_lock);
    while (!lock.owns_lock() && steady_clock::now() < deadline) {
      std::this_thread::yield();
      if (lock.try_lock()) break;
    }
    if (!lock.owns_lock()) base::log_error("rank {} hangs in a call of NCCL", lane.rank);
    std::swap(comm, lane.comm);
  }
  if (comm != nullptr) api_.comm_abort(comm);
}

// The reason goes first: an aborted collective ends without its result, and nobody who waited for
// it may take it for one.
void NcclNode::fail(const std::string& reason) {
  meeting_.abort(reason);
  if (has_failed_.exchange(true)) return;
  base::log_error("collectives have failed: {}", reason);
  const milliseconds patience = std::min(timeout_ * 2, kTearDownMax);
  if (!on_threads(patience, [this](Lane& lane) { abort_lane(lane); }))
    base::log_error("NCCL could not be aborted within {} ms", patience.count());
}

// --- Collectives.

// Returns when all ranks have come. Whoever gives up takes the others' work on the GPUs with it.
void NcclNode::meet(int rank, const Proposal& proposal) {
  Lane& lane = *lanes_[size_t(rank)];
  meeting_.check();
  if (const auto good = look_back(lane); !good) fail(good.reason());
  try {
    meeting_.arrive(rank, proposal);
  } catch (const base::Error& error) {
    fail(error.what());
    throw;
  }
}

// What has been found out since the last call, before anybody trusts in what was computed; and room
// for one more collective, for which the watchdog is the deadline.
base::Result<void> NcclNode::look_back(Lane& lane) {
  for (;;) {
    {
      std::unique_lock lock(lane.mutex);
      if (lane.comm == nullptr || has_failed_) return base::Failure{"aborted"};
      if (auto trouble = look_at(lane, lock)) return base::Failure{std::move(*trouble)};
      if (lane.last - lane.first < kQueuedMax) return {};
    }
    std::this_thread::yield();
  }
}

// Returns when the collective is queued on all GPUs.
void NcclNode::part(int rank) {
  try {
    meeting_.leave(rank);
  } catch (const base::Error& error) {
    fail(error.what());
    throw;
  }
}

void NcclNode::barrier(int rank) {
  meet(rank, {.operation = "barrier"});
  part(rank);
}

void NcclNode::collective(int rank, const Proposal& proposal, const Stream& stream,
                          const Call& call) {
  Lane& lane = *lanes_[size_t(rank)];
  select_device(lane.device);
  meet(rank, proposal);
  const int64_t number = lane.count++;
  if (const auto queued = enqueue(lane, proposal.operation, handle_of(stream), call); !queued) {
    const std::string reason =
        fmt::format("{} {}: {}", proposal.operation, number, queued.reason());
    // First, so that NCCL lets the other ranks go.
    fail(fmt::format("rank {}: {}", rank, reason));
    meeting_.leave_failed(rank, reason);
    meeting_.check();
  }
  part(rank);
}

// REQUIRES: locked.
base::Failure NcclNode::failure(const Lane& lane, ncclResult_t result) const {
  const char* const detail = lane.comm != nullptr ? api_.get_last_error(lane.comm) : nullptr;
  return {fmt::format("NCCL says {} ({})", api_.get_error_string(result),
                      detail != nullptr ? detail : "")};
}

base::Result<void> NcclNode::enqueue(Lane& lane, const char* operation, cudaStream_t stream,
                                     const Call& call) {
  Queued queued = lane.queue[size_t(lane.last % kQueuedMax)];
  queued.operation = operation;
  queued.number = lane.count - 1;
  queued.begun.reset();
  const auto record = [&](cudaEvent_t event) -> base::Result<void> {
    const cudaError_t status = cudaEventRecord(event, stream);
    if (status == cudaSuccess) return {};
    return base::Failure{fmt::format("recording an event: {}", cudaGetErrorString(status))};
  };
  if (const auto recorded = record(queued.begin); !recorded) return recorded;
  if (const auto done = run(lane, stream, call); !done) return done;
  if (const auto recorded = record(queued.end); !recorded) return recorded;
  const std::lock_guard lock(lane.mutex);
  lane.queue[size_t(lane.last++ % kQueuedMax)] = queued;
  return {};
}

base::Result<void> NcclNode::run(Lane& lane, cudaStream_t stream, const Call& call) {
  {
    const std::lock_guard lock(lane.mutex);
    if (lane.comm == nullptr) return base::Failure{"aborted"};
    const ncclResult_t result = call(lane.comm, stream);
    if (result != ncclSuccess && result != ncclInProgress) return failure(lane, result);
  }
  return settle(lane);
}

// Until NCCL has done on the host what it was told to do.
base::Result<void> NcclNode::settle(Lane& lane) {
  const auto deadline = steady_clock::now() + timeout_;
  for (;;) {
    const bool is_last_try = steady_clock::now() > deadline;
    {
      const std::lock_guard lock(lane.mutex);
      if (lane.comm == nullptr || has_failed_) return base::Failure{"aborted"};
      ncclResult_t state = ncclInProgress;
      const ncclResult_t result = api_.comm_get_async_error(lane.comm, &state);
      if (result != ncclSuccess) return failure(lane, result);
      if (state == ncclSuccess) return {};
      if (state != ncclInProgress) return failure(lane, state);
    }
    if (is_last_try)
      return base::Failure{fmt::format("NCCL is not ready within {} ms", timeout_.count())};
    std::this_thread::yield();
  }
}

}  // namespace cuda
