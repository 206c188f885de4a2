// The parameters of one rank: flat fp32 shards per unit for master weights, gradients and whatever
// the optimiser keeps, and the whole units, gathered for as long as they are used.
//
// Use, per unit and pass:  gather(u) ... weight(u, "name") ... release(u);  and in the backward
// gradient(u, "name") += ... ; reduce(u).  With one rank and fp32 compute, gather and reduce move
// nothing: the unit is the shard. With several ranks they are collectives on the communication
// stream, beside what the compute stream does: prefetch(u) starts to gather what comes next, and
// reduce(u) returns when it is queued. All ranks make the same calls in the same order.
//
// Lean, for a model that would not fit otherwise: masters in the compute dtype, so that the
// gathered weights are the masters, and one gradient buffer that all units use in turn, or two. A
// unit's gradient is then whole at reduce(), which hands it to the consumer.
//
// Threads: one rank, one thread; but copies from and to the host may be made by any thread, one at
// a time, while the rank's own does nothing.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "shard/layout.h"

namespace shard {

// What the ranks of a node share out (ZeRO; Rajbhandari et al. 2020, arXiv 1910.02054). With one
// rank all are the same.
enum class Sharding {
  // Nothing: every rank has everything, and gradients are summed once per step.
  kReplicated,
  // Masters, moments and gradients: weights are gathered once per step, gradients are reduced in
  // every micro-batch (ZeRO stage 2).
  kGradients,
  // Weights too: two of the units between the first and the last exist whole at a time (ZeRO stage
  // 3, FSDP).
  kFull,
};

// What a rank moved, and how long its compute stream stood still for it.
struct Traffic {
  // Of whole units, times (R - 1) / R for R ranks (an all-reduce counts twice): what crosses a
  // rank's link one way, as NCCL's own tests count.
  int64_t gathered_bytes = 0;
  int64_t reduced_bytes = 0;
  double exposed_seconds = 0;
};

class Parameters {
 public:
  enum class Memory { kStandard, kLean };
  struct Options {
    Memory memory = Memory::kStandard;  // Lean is for one rank.
    Sharding sharding = Sharding::kFull;
    // Lean: 1 or 2 gradient buffers. With two, a unit's consumer works on the copy stream while the
    // compute stream makes the next unit's gradient.
    int lean_gradients = 1;
  };
  // `layout` and `backend` outlive the object. Allocates everything.
  Parameters(const Layout& layout, backend::Backend& backend, const Options& options);
  Parameters(const Layout& layout, backend::Backend& backend);
  ~Parameters();
  Parameters(const Parameters&) = delete;
  Parameters& operator=(const Parameters&) = delete;

  const Layout& layout() const;
  bool is_lean() const;
  bool is_sharded() const;  // False: this rank has everything.

  // Fills the masters: a pure function of (seed, tensor name, element index), the same on every
  // machine and for any number of threads: without one, this rank's part of the processors. The
  // host waits.
  void initialize(uint64_t seed);
  void initialize(uint64_t seed, int threads);

  // Makes the whole unit readable in the compute dtype until release(). Queued on the compute
  // stream. The host is never more than two units ahead of the device: it waits here.
  void gather(int64_t unit);
  // The unit that will be gathered next: moves it while others are computed. Does nothing if it is
  // whole already. REQUIRES: the unit whose place it takes was released (two units before it).
  void prefetch(int64_t unit);
  void release(int64_t unit);
  backend::Tensor weight(int64_t unit, const std::string& name) const;  // REQUIRES: gathered.

  // Where an operation puts a gradient: added to what is there, or written over it.
  struct GradientTarget {
    backend::Tensor tensor;  // fp32, the whole tensor.
    bool accumulate = true;
  };
  // The first of a unit since its gradient was discarded is to be written over. The caller writes
  // all of it. REQUIRES: the unit whose place it takes was reduced (two units before it; lean:
  // every other).
  GradientTarget gradient_target(int64_t unit, const std::string& name);
  // The same for operations that can only accumulate.
  backend::Tensor gradient(int64_t unit, const std::string& name);

  // Adds the unit's gradient, summed over the ranks, to the gradient shard. Replicated: sums the
  // gradient over the ranks if this is the step's last micro-batch, see below.
  void reduce(int64_t unit);
  // True: more micro-batches follow before the optimiser reads the gradients. False at the start.
  void expect_more_micro_batches(bool more);
  // The compute stream waits until all gradient shards are complete, or consumed.
  void await_reductions();
  // Called at the end of every reduce(). What it queues on `stream` finds the gradient whole, and
  // is done before the next unit's gradient takes the place.
  using GradientConsumer = std::function<void(int64_t unit, backend::Stream& stream)>;
  void set_gradient_consumer(GradientConsumer consumer);
  // They count as zero from here on, whatever is in memory: shards are not to be read before the
  // next reduce(). Lean: after the consumer by itself.
  void discard_gradients();

  // The canonical elements that this rank's shard of a unit has.
  struct Range {
    int64_t first = 0, count = 0;
  };
  Range shard_range(int64_t unit) const;
  // This rank's shard of a unit: (padded_count / ranks) elements, fp32 (lean masters: the compute
  // dtype); replicated: all of it.
  backend::Tensor master_shard(int64_t unit) const;
  backend::Tensor gradient_shard(int64_t unit) const;
  // Where the masters are wanted in the compute dtype as well; absent where that is what they are.
  // Whoever writes both says masters_updated() instead of masters_changed().
  backend::Tensor copy_shard(int64_t unit) const;
  void masters_updated(int64_t unit);
  // After the master shards were written: what was gathered before is stale. Writing with
  // copy_masters_from_host says so by itself. REQUIRES: nothing is gathered.
  void masters_changed();
  // Adds up what each rank computed of its own shards, on the compute stream. Replicated: nothing,
  // as every rank has it all.
  void sum_over_shards(const backend::Tensor& values);

  // Copies canonical elements [first, first + elements.size()) of a unit to or from host memory, as
  // far as they lie in this rank's shard; the elements of other ranks are left alone. The host
  // waits. Masters are written by all ranks alike, each with the same ranges; bf16 masters take the
  // nearest values.
  void copy_masters_to_host(int64_t unit, int64_t first, std::span<float> elements) const;
  void copy_masters_from_host(int64_t unit, int64_t first, std::span<const float> elements);
  // The same for any fp32 tensor that is cut as the masters are: gradient shards, moments.
  void copy_shard_to_host(const backend::Tensor& shard, int64_t unit, int64_t first,
                          std::span<float> elements) const;
  void copy_shard_from_host(const backend::Tensor& shard, int64_t unit, int64_t first,
                            std::span<const float> elements) const;

  // Traffic is counted from start to stop, which waits for the device. Two events around each wait
  // cost a few microseconds.
  void start_traffic();
  Traffic stop_traffic();

 private:
  struct State;
  class InitialUpload;
  std::unique_ptr<State> state_;
};

// Device bytes of a Parameters object of one rank, without making one.
struct ParameterBytes {
  int64_t masters = 0;
  int64_t gradients = 0;
  int64_t compute_copies = 0;   // Of the shards.
  int64_t whole_weights = 0;    // Room for gathered units.
  int64_t whole_gradients = 0;  // Room for units that are not reduced yet.
  int64_t sum() const;
};
ParameterBytes planned_bytes(const Layout& layout, const Parameters::Options& options, int ranks,
                             backend::DType compute_dtype);

// Host-side fill of one tensor, used by Parameters::initialize and by whoever needs the initial
// values without a device. `first` is the element index of values[0] inside the tensor.
void fill_initial(const TensorSpec& spec, uint64_t seed, int64_t first, std::span<float> values);

}  // namespace shard
