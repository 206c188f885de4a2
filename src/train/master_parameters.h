// The inner masters of a node, as the outer loop reads and writes them.
#pragma once

#include "outer/outer_state.h"
#include "shard/parameters.h"

namespace train {

class MasterParameters : public outer::LocalParameters {
 public:
  explicit MasterParameters(shard::Parameters& parameters) : parameters_(parameters) {}

  void read(int64_t unit, int64_t first, std::span<float> elements) override {
    parameters_.copy_masters_to_host(unit, first, elements);
  }
  void write(int64_t unit, int64_t first, std::span<const float> elements) override {
    parameters_.copy_masters_from_host(unit, first, elements);
  }

 private:
  shard::Parameters& parameters_;
};

}  // namespace train
