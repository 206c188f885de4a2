// The parameters of one rank: flat fp32 shards per unit for master weights, gradients and whatever
// the optimiser keeps, and the whole units, gathered for as long as they are used.
//
// Use, per unit and pass:  gather(u) ... weight(u, "name") ... release(u);  and in the backward
// gradient(u, "name") += ... ; reduce(u).  With one rank and fp32 compute, gather and reduce move
// nothing: the unit is the shard.
//
// Lean, for a model that would not fit otherwise: masters in the compute dtype, so that the
// gathered weights are the masters, and one gradient buffer that all units use in turn. A unit's
// gradient is then whole at reduce(), which hands it to the consumer; the consumer must leave it
// zero.
//
// Threads: one rank, one thread.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "shard/layout.h"

namespace shard {

class Parameters {
 public:
  enum class Memory { kStandard, kLean };
  // `layout` and `backend` outlive the object. Allocates masters and gradients. Lean is for one
  // rank.
  Parameters(const Layout& layout, backend::Backend& backend, Memory memory = Memory::kStandard);
  ~Parameters();
  Parameters(const Parameters&) = delete;
  Parameters& operator=(const Parameters&) = delete;

  const Layout& layout() const { return layout_; }
  bool is_lean() const { return memory_ == Memory::kLean; }

  // Fills the masters: a pure function of (seed, tensor name, element index), the same on every
  // machine.
  void initialize(uint64_t seed);

  // Makes the whole unit readable in the compute dtype until release(). Queued on the compute
  // stream.
  void gather(int64_t unit);
  void release(int64_t unit);
  backend::Tensor weight(int64_t unit, const std::string& name) const;  // REQUIRES: gathered.
  // fp32, the whole tensor; accumulate into it. Lean: REQUIRES that every other unit whose gradient
  // was touched has been reduced.
  backend::Tensor gradient(int64_t unit, const std::string& name);

  // Sums the unit's gradient over the ranks into the gradient shard (+=).
  void reduce(int64_t unit);
  // Called at the end of every reduce().
  void set_gradient_consumer(std::function<void(int64_t unit)> consumer) {
    gradient_consumer_ = std::move(consumer);
  }
  void zero_gradients();

  // This rank's shard of a unit: (padded_count / ranks) elements, fp32 (lean masters: the compute
  // dtype).
  backend::Tensor master_shard(int64_t unit) const;
  backend::Tensor gradient_shard(int64_t unit) const;
  // Where the masters are wanted in the compute dtype as well; absent where that is what they are.
  // Whoever writes both says masters_updated() instead of masters_changed().
  backend::Tensor copy_shard(int64_t unit) const;
  void masters_updated(int64_t unit);
  // After the master shards were written: what was gathered before is stale. Writing with
  // copy_masters_from_host says so by itself. REQUIRES: nothing is gathered.
  void masters_changed();

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

 private:
  struct UnitBuffers;
  // Where a range of canonical elements meets this rank's shard.
  struct Overlap {
    int64_t in_elements = 0;  // Of the first common element, in the range.
    int64_t in_shard = 0;     // And in the shard.
    int64_t count = 0;
  };
  void copy_and_wait(void* target, const void* source, int64_t byte_count) const;
  Overlap overlap_with_shard(int64_t unit, int64_t first, int64_t count) const;

  const Layout& layout_;
  backend::Backend& backend_;
  const Memory memory_;
  std::vector<std::unique_ptr<UnitBuffers>> units_;
  std::unique_ptr<backend::Buffer> common_gradient_;  // Lean.
  int64_t unit_with_gradient_ = -1;                   // Lean: which unit is using it.
  std::function<void(int64_t unit)> gradient_consumer_;
};

// Host-side fill of one tensor, used by Parameters::initialize and by whoever needs the initial
// values without a device. `first` is the element index of values[0] inside the tensor.
void fill_initial(const TensorSpec& spec, uint64_t seed, int64_t first, std::span<float> values);

}  // namespace shard
