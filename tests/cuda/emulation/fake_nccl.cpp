// NCCL between emulated GPUs. A collective occupies each stream from the moment it is queued there
// until the last rank has queued it; that rank's call computes for all. Calls return at once and
// are in progress for a while, as those of communicators made with blocking = 0 are. What a real
// NCCL would leave undefined (a communicator used after its end, several threads in one, a stream
// of another GPU) ends the program.
#include "emulation/fake_nccl.h"

#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "cuda/nccl_api.h"
#include "emulation/fake_device.h"

namespace {

constexpr int kPollsInProgress = 2;

[[noreturn]] void die(const char* what) {
  std::fprintf(stderr, "fake NCCL: %s\n", what);
  std::_Exit(1);
}

struct Call {
  const char* operation;
  const void* in;
  void* out;
  size_t count;
  int root;
  emulation::Hold hold = nullptr;
  std::vector<emulation::Hold> before = {};  // What the stream is at before the collective.
};

struct Clique {
  std::vector<ncclComm*> members;
  std::map<int64_t, std::vector<Call>> calls;  // Of each collective, by rank; absent: no operation.
};

struct State {
  std::mutex mutex;
  std::condition_variable changed;
  emulation::Fault fault = emulation::Fault::kNone;
  int faulty_rank = 0;
  int64_t faulty_number = 0;
  std::map<uint64_t, Clique> cliques;
  uint64_t next_id = 1;
  int live = 0;
  std::vector<std::unique_ptr<ncclComm>> all;  // Kept, so that a use after the end is found.
};
State& state() {
  static State state;
  return state;
}

}  // namespace

struct ncclComm {
  Clique* clique;
  int rank, device;
  int64_t count = 0;
  int polls = kPollsInProgress;
  bool is_stuck = false;  // In progress for ever.
  ncclResult_t error = ncclSuccess;
  bool has_ended = false;
};

namespace {

// REQUIRES for all below: locked.

bool is_faulty(emulation::Fault fault, const ncclComm& comm) {
  const State& s = state();
  return s.fault == fault && s.faulty_rank == comm.rank;
}
bool is_faulty_now(emulation::Fault fault, const ncclComm& comm) {
  return is_faulty(fault, comm) && state().faulty_number == comm.count;
}

void require_live(ncclComm_t comm) {
  if (comm == nullptr) die("no communicator");
  if (comm->has_ended) die("a communicator is used after its end");
}

bool is_complete(const Clique& clique) {
  for (const ncclComm* member : clique.members) {
    if (member == nullptr) return false;
  }
  return true;
}

// By what the header says, in rank order.
void compute(const std::vector<Call>& calls) {
  const size_t ranks = calls.size(), count = calls[0].count;
  const std::string_view operation = calls[0].operation;
  if (operation == "all_gather" || operation == "broadcast") {
    std::vector<char> all;
    for (const Call& call : calls) {
      const auto* const in = static_cast<const char*>(call.in);
      all.insert(all.end(), in, in + count);
    }
    for (const Call& call : calls) {
      const bool is_gather = operation == "all_gather";
      const size_t begin = is_gather ? 0 : size_t(call.root) * count;
      if (count > 0) std::memcpy(call.out, all.data() + begin, is_gather ? all.size() : count);
    }
    return;
  }
  const bool is_scatter = operation == "reduce_scatter";
  std::vector<float> sum(is_scatter ? ranks * count : count);
  for (const Call& call : calls) {
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += static_cast<const float*>(call.in)[i];
  }
  for (size_t rank = 0; rank < ranks; ++rank) {
    const float* const part = sum.data() + (is_scatter ? rank * count : 0);
    if (count > 0) std::memcpy(calls[rank].out, part, count * sizeof(float));
  }
}

ncclResult_t queue(ncclComm_t comm, cudaStream_t stream, Call call) {
  using emulation::Fault;
  const std::lock_guard lock(state().mutex);
  require_live(comm);
  if (comm->polls > 0 || comm->is_stuck) die("a call before the last one was done");
  if (emulation::device_of(stream) != comm->device) die("a stream of another GPU");
  if (is_faulty_now(Fault::kQueueingFails, *comm)) return ncclSystemError;
  comm->is_stuck = is_faulty_now(Fault::kQueueingNeverEnds, *comm);
  if (comm->is_stuck) return ncclInProgress;
  const bool has_error =
      is_faulty_now(Fault::kErrorLater, *comm) || is_faulty_now(Fault::kErrorAtEnd, *comm);
  if (has_error) comm->error = ncclRemoteError;
  const Fault fault = state().fault;
  const bool ends = !((fault == Fault::kNeverEnds || fault == Fault::kErrorLater ||
                       fault == Fault::kAbortNeverEnds) &&
                      state().faulty_number == comm->count);
  auto& calls = comm->clique->calls[comm->count++];
  calls.resize(comm->clique->members.size());
  call.before = emulation::holds_of(stream);
  call.hold = emulation::hold(stream);
  calls[size_t(comm->rank)] = call;
  comm->polls = kPollsInProgress;
  for (const Call& one : calls) {
    if (one.operation == nullptr) return ncclInProgress;
    if (std::string_view(one.operation) != call.operation || one.count != call.count)
      die("ranks call different collectives");
  }
  if (!ends) return ncclInProgress;
  if (fault != Fault::kErrorAtEnd) compute(calls);
  std::vector<emulation::Hold> before;
  for (const Call& one : calls) before.insert(before.end(), one.before.begin(), one.before.end());
  for (const Call& one : calls) emulation::release(one.hold, before);
  comm->clique->calls.erase(comm->count - 1);
  return ncclInProgress;
}

void end(ncclComm_t comm) {
  comm->has_ended = true;
  --state().live;
  for (auto& [number, calls] : comm->clique->calls) {
    Call& call = calls[size_t(comm->rank)];
    if (call.hold) emulation::release(call.hold);
  }
}

ncclResult_t get_version(int* version) {
  *version = 22809;
  return ncclSuccess;
}
ncclResult_t get_unique_id(ncclUniqueId* id) {
  const std::lock_guard lock(state().mutex);
  const uint64_t number = state().next_id++;
  *id = {};
  std::memcpy(id->internal, &number, sizeof(number));
  return ncclSuccess;
}

ncclResult_t comm_init_rank_config(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank,
                                   ncclConfig_t* config) {
  const std::lock_guard lock(state().mutex);
  if (config->blocking != 0) die("a communicator whose calls block");
  uint64_t number = 0;
  std::memcpy(&number, id.internal, sizeof(number));
  Clique& clique = state().cliques[number];
  clique.members.resize(size_t(ranks));
  auto made = std::make_unique<ncclComm>();
  made->clique = &clique;
  made->rank = rank;
  cudaGetDevice(&made->device);
  if (is_faulty(emulation::Fault::kStartFails, *made)) return ncclSystemError;
  for (const ncclComm* member : clique.members) {
    if (member != nullptr && member->device == made->device) return ncclInvalidUsage;
  }
  made->is_stuck = is_faulty(emulation::Fault::kStartNeverEnds, *made);
  clique.members[size_t(rank)] = *comm = made.get();
  state().all.push_back(std::move(made));
  ++state().live;
  return ncclInProgress;
}

ncclResult_t comm_finalize(ncclComm_t comm) {
  const std::lock_guard lock(state().mutex);
  require_live(comm);
  comm->is_stuck = is_faulty(emulation::Fault::kFinalizeNeverEnds, *comm);
  comm->polls = kPollsInProgress;
  return ncclInProgress;
}

ncclResult_t comm_destroy(ncclComm_t comm) {
  const std::lock_guard lock(state().mutex);
  require_live(comm);
  if (comm->polls > 0 || comm->is_stuck) die("a communicator is destroyed before its end");
  end(comm);
  return ncclSuccess;
}

ncclResult_t comm_abort(ncclComm_t comm) {
  std::unique_lock lock(state().mutex);
  require_live(comm);
  end(comm);
  state().changed.wait(lock, [&] { return !is_faulty(emulation::Fault::kAbortNeverEnds, *comm); });
  return ncclSuccess;
}

ncclResult_t comm_get_async_error(ncclComm_t comm, ncclResult_t* error) {
  const std::lock_guard lock(state().mutex);
  require_live(comm);
  *error = ncclInProgress;
  if (comm->is_stuck || !is_complete(*comm->clique)) return ncclSuccess;
  if (comm->polls > 0) {
    // The call itself succeeds; an error comes after it.
    if (--comm->polls == 0) *error = ncclSuccess;
    return ncclSuccess;
  }
  *error = comm->error;
  return ncclSuccess;
}

const char* get_error_string(ncclResult_t result) {
  return result == ncclSuccess ? "no error" : "a fake error";
}
const char* get_last_error(ncclComm_t) {
  return "as the test wished";
}

ncclResult_t all_gather(const void* in, void* out, size_t count, ncclDataType_t type,
                        ncclComm_t comm, cudaStream_t stream) {
  if (type != ncclInt8) die("all_gather of other than bytes");
  return queue(comm, stream, {"all_gather", in, out, count, 0});
}
ncclResult_t reduce_scatter(const void* in, void* out, size_t count, ncclDataType_t type,
                            ncclRedOp_t operation, ncclComm_t comm, cudaStream_t stream) {
  if (type != ncclFloat32 || operation != ncclSum) die("reduce_scatter that is no fp32 sum");
  return queue(comm, stream, {"reduce_scatter", in, out, count, 0});
}
ncclResult_t all_reduce(const void* in, void* out, size_t count, ncclDataType_t type,
                        ncclRedOp_t operation, ncclComm_t comm, cudaStream_t stream) {
  if (type != ncclFloat32 || operation != ncclSum) die("all_reduce that is no fp32 sum");
  return queue(comm, stream, {"all_reduce", in, out, count, 0});
}
ncclResult_t broadcast(const void* in, void* out, size_t count, ncclDataType_t type, int root,
                       ncclComm_t comm, cudaStream_t stream) {
  if (type != ncclInt8) die("broadcast of other than bytes");
  return queue(comm, stream, {"broadcast", in, out, count, root});
}

}  // namespace

namespace emulation {

void set_fault(Fault fault, int rank, int64_t number) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  s.fault = fault;
  s.faulty_rank = rank;
  s.faulty_number = number;
  s.changed.notify_all();
}

int live_communicators() {
  const std::lock_guard lock(state().mutex);
  return state().live;
}

}  // namespace emulation

namespace cuda {

base::Result<const NcclApi*> load_nccl() {
  static const NcclApi api{get_version,    get_unique_id, comm_init_rank_config, comm_finalize,
                           comm_destroy,   comm_abort,    comm_get_async_error,  get_error_string,
                           get_last_error, all_gather,    reduce_scatter,        all_reduce,
                           broadcast};
  const std::lock_guard lock(state().mutex);
  if (state().fault == emulation::Fault::kMissing) return base::Failure{"there is no fake NCCL"};
  return &api;
}

}  // namespace cuda
