// The inner masters of a node, as the outer loop reads and writes them.
#pragma once

#include "backend/quantization.h"
#include "outer/outer_state.h"
#include "shard/parameters.h"

namespace train {

class MasterParameters : public outer::LocalParameters {
 public:
  MasterParameters(shard::Parameters& parameters, backend::Device& device)
      : parameters_(parameters), device_(device) {}

  void read(int64_t unit, int64_t first, std::span<float> elements) override {
    parameters_.copy_masters_to_host(unit, first, elements);
  }
  void write(int64_t unit, int64_t first, std::span<const float> elements) override {
    parameters_.copy_masters_from_host(unit, first, elements);
  }
  void round(std::span<float> elements) const override {
    if (parameters_.master_shard(0).dtype == backend::DType::kFloat32) return;
    for (float& value : elements) value = backend::from_bfloat16(backend::to_bfloat16(value));
  }
  std::unique_ptr<backend::Buffer> allocate(int64_t byte_count) override {
    return device_.allocate_host(byte_count, "outer state");
  }

 private:
  shard::Parameters& parameters_;
  backend::Device& device_;
};

}  // namespace train
