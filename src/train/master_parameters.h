// The inner masters of a node, as the outer loop and checkpoints read and write them: canonical
// elements, whatever rank has them.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "backend/quantization.h"
#include "base/numa.h"
#include "outer/outer_state.h"
#include "shard/parameters.h"

namespace train {

class MasterParameters : public outer::LocalParameters {
 public:
  // One for each rank; they outlive the object. `device` is any rank's.
  MasterParameters(const std::vector<shard::Parameters*>& ranks, backend::Device& device)
      : device_(device) {
    for (shard::Parameters* parameters : ranks)
      ranks_.push_back(std::make_unique<OneRank>(*parameters));
  }

  void read(int64_t unit, int64_t first, std::span<float> elements) override {
    for (const auto& rank : ranks_) {
      const std::lock_guard lock(rank->mutex);
      rank->parameters.copy_masters_to_host(unit, first, elements);
      if (!rank->parameters.is_sharded()) return;  // It has everything.
    }
  }
  void write(int64_t unit, int64_t first, std::span<const float> elements) override {
    for (const auto& rank : ranks_) {
      const std::lock_guard lock(rank->mutex);
      rank->parameters.copy_masters_from_host(unit, first, elements);
    }
  }
  void round(std::span<float> elements) const override {
    if (ranks_.front()->parameters.master_shard(0).dtype == backend::DType::kFloat32) return;
    for (float& value : elements) value = backend::from_bfloat16(backend::to_bfloat16(value));
  }
  // Each copy to or from a GPU takes as long as tens of thousands of elements need on the bus.
  int64_t elements_at_a_time() const override {
    const bool is_cpu = device_.compute_dtype() == backend::DType::kFloat32;
    return is_cpu ? LocalParameters::elements_at_a_time() : int64_t{1} << 20;
  }
  std::unique_ptr<backend::Buffer> allocate(int64_t byte_count) override {
    const base::InterleavedMemory for_all_ranks;
    return device_.allocate_host(byte_count, "outer state");
  }

 private:
  // A device copies for one thread at a time; those of several ranks work at once.
  struct OneRank {
    explicit OneRank(shard::Parameters& p) : parameters(p) {}
    std::mutex mutex;
    shard::Parameters& parameters;
  };
  std::vector<std::unique_ptr<OneRank>> ranks_;
  backend::Device& device_;
};

}  // namespace train
