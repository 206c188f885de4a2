// The inner masters of a node, as the outer loop and checkpoints read and write them: canonical
// elements, whatever rank has them.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "outer/outer_state.h"
#include "train/device_masters.h"
#include "train/rank_team.h"

namespace train {

class MasterParameters : public outer::LocalParameters {
 public:
  // The ranks outlive the object. What GPUs need is allocated here, before the first step.
  explicit MasterParameters(RankTeam& ranks);

  // Of each GPU.
  static int64_t planned_device_bytes() { return 2 * DeviceMasters::planned_bytes(); }

  void read(int64_t unit, int64_t first, std::span<float> elements) override;
  void write(int64_t unit, int64_t first, std::span<const float> elements) override;
  void round(std::span<float> elements) const override;
  int64_t elements_at_a_time() const override;
  std::unique_ptr<backend::Buffer> allocate(int64_t byte_count) override;

  std::vector<Range> device_ranges(int64_t unit, Range range) const override;
  bool encode_difference(int64_t unit, int64_t first, std::span<const float> outer,
                         const Blocks<std::byte>& blocks) override;
  // Whoever merges says shard::Parameters::masters_changed() afterwards.
  void add(int64_t unit, int64_t first, std::span<const float> change,
           const Blocks<const std::byte>* blocks) override;

 private:
  // A device copies for one thread at a time on each stream; those of several ranks work at once.
  struct OneRank {
    OneRank(shard::Parameters& parameters, backend::Backend& backend);

    shard::Parameters& parameters;
    backend::Backend* const backend;
    std::mutex copies, side;                            // Of the two streams.
    std::unique_ptr<DeviceMasters> on_copies, on_side;  // On GPUs.
    std::atomic<unsigned> turn = 0;

    bool has(int64_t unit, int64_t element) const;
    // body(device masters, these elements), on either stream.
    template <class Body>
    auto work(int64_t unit, int64_t first, size_t count, const Body& body);
  };
  backend::Device& device() const { return *ranks_.front()->backend->device; }

  std::vector<std::unique_ptr<OneRank>> ranks_;
};

}  // namespace train
