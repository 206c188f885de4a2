// How the parameters of a model lie in flat buffers. A unit (embedding, block i, head) is what is
// gathered and sharded together; inside it, tensors follow each other without gaps in the order in
// which they were added. This canonical order does not depend on the number of ranks: outer state,
// checkpoints and peers all use it. Only the end of a unit is padded, so that ranks get equal
// shards.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backend/tensor.h"

namespace shard {

// How a tensor is filled at step 0: normal with `standard_deviation`, cut at +-`cut` standard
// deviations (0: not cut), or ones if the deviation is 0.
struct Initializer {
  double standard_deviation = 0;
  double cut = 0;
};

struct TensorSpec {
  std::string name;  // In full: unit name, point, local name. "blocks.3.qkv"
  backend::Shape shape;
  Initializer initializer;
  int64_t offset = 0;  // In elements, from the start of the unit.
};

struct Unit {
  std::string name;  // "embedding", "blocks.3", "head"
  std::vector<TensorSpec> tensors;
  int64_t element_count = 0;  // Without padding.

  // By the local name: "qkv". REQUIRES: it is there.
  const TensorSpec& find(const std::string& local_name) const;
};

struct Layout {
  std::vector<Unit> units;

  int64_t element_count() const;  // Of all units, without padding.
  int64_t unit_offset(
      int64_t unit_index) const;  // In canonical elements, from the start of unit 0.
  // A multiple of 64 * rank_count elements.
  int64_t padded_count(int64_t unit_index, int rank_count) const;
};

// Adds a tensor at the end of `unit`; its full name is unit.name + "." + local_name.
void add_tensor(Unit& unit, const std::string& local_name, const backend::Shape& shape,
                const Initializer& initializer);

}  // namespace shard
