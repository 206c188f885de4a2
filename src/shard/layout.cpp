#include "shard/layout.h"

#include "base/math.h"

namespace shard {

// 64 fp32 elements are 256 bytes: every shard then starts where vector loads on any device want it.
constexpr int64_t kShardGranularity = 64;

const TensorSpec& Unit::find(const std::string& local_name) const {
  const std::string full_name = name + "." + local_name;
  for (const TensorSpec& tensor : tensors) {
    if (tensor.name == full_name) return tensor;
  }
  base::report_bug(__FILE__, __LINE__, "tensor is in its unit", full_name);
}

int64_t Layout::element_count() const {
  return unit_offset(int64_t(units.size()));
}

int64_t Layout::unit_offset(int64_t unit_index) const {
  CHECK(unit_index >= 0 && unit_index <= int64_t(units.size()));
  int64_t offset = 0;
  for (int64_t u = 0; u < unit_index; ++u) offset += units[size_t(u)].element_count;
  return offset;
}

int64_t Layout::padded_count(int64_t unit_index, int rank_count) const {
  CHECK(unit_index >= 0 && unit_index < int64_t(units.size()) && rank_count >= 1);
  return base::round_up(units[size_t(unit_index)].element_count, kShardGranularity * rank_count);
}

void add_tensor(Unit& unit, const std::string& local_name, const backend::Shape& shape,
                const Initializer& initializer) {
  unit.tensors.push_back({.name = unit.name + "." + local_name,
                          .shape = shape,
                          .initializer = initializer,
                          .offset = unit.element_count});
  unit.element_count += shape.element_count();
}

}  // namespace shard
