// The parameters of one rank: flat fp32 shards per unit for master weights, gradients and whatever
// the optimiser keeps, and the whole units, gathered for as long as they are used.
//
// Use, per unit and pass:  gather(u) ... weight(u, "name") ... release(u);  and in the backward
// gradient(u, "name") += ... ; reduce(u).  With one rank and fp32 compute, gather and reduce move
// nothing: the unit is the shard.
//
// Threads: one rank, one thread.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "shard/layout.h"

namespace shard {

class Parameters {
 public:
  // `layout` and `backend` outlive the object. Allocates masters and gradients.
  Parameters(const Layout& layout, backend::Backend& backend);
  ~Parameters();
  Parameters(const Parameters&) = delete;
  Parameters& operator=(const Parameters&) = delete;

  const Layout& layout() const { return layout_; }

  // Fills the masters: a pure function of (seed, tensor name, element index), the same on every
  // machine.
  void initialize(uint64_t seed);

  // Makes the whole unit readable in the compute dtype until release(). Queued on the compute
  // stream.
  void gather(int64_t unit);
  void release(int64_t unit);
  backend::Tensor weight(int64_t unit, const std::string& name) const;  // REQUIRES: gathered.
  backend::Tensor gradient(
      int64_t unit, const std::string& name) const;  // fp32, the whole tensor; accumulate into it.

  // Sums the unit's gradient over the ranks into the gradient shard (+=).
  void reduce(int64_t unit);
  void zero_gradients();

  // This rank's shard of a unit: (padded_count / ranks) fp32 elements.
  backend::Tensor master_shard(int64_t unit) const;
  backend::Tensor gradient_shard(int64_t unit) const;
  // After the optimiser has written the master shards: what was gathered before is stale. Writing
  // with copy_masters_from_host says so by itself. REQUIRES: nothing is gathered.
  void masters_changed();

  // Copies canonical elements [first, first + elements.size()) of a unit to or from host memory, as
  // far as they lie in this rank's shard; the elements of other ranks are left alone. The host
  // waits. Masters are written by all ranks alike, each with the same ranges.
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
  Overlap overlap_with_shard(int64_t unit, int64_t first, int64_t count) const;

  const Layout& layout_;
  backend::Backend& backend_;
  std::vector<std::unique_ptr<UnitBuffers>> units_;
};

// Host-side fill of one tensor, used by Parameters::initialize and by whoever needs the initial
// values without a device. `first` is the element index of values[0] inside the tensor.
void fill_initial(const TensorSpec& spec, uint64_t seed, int64_t first, std::span<float> values);

}  // namespace shard
