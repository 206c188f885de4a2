// The memory of Parameters: which unit has what, and which units share a place. The same table is
// walked to allocate it and to add up its size.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend/device.h"
#include "shard/parameters.h"

namespace shard {

enum class BufferKind { kMasters, kGradients, kComputeCopies, kWholeWeights, kWholeGradients };

// A whole unit's weights in the compute dtype.
struct WeightPlace {
  backend::Tensor memory;
  int64_t holder = -1;                     // The unit whose weights are there, or on their way.
  std::unique_ptr<backend::Event> filled;  // Until the compute stream has waited for it.
};

// A whole unit's gradient, from the first operation that writes it until it is reduced; where the
// whole is the shard, until it is discarded.
struct GradientPlace {
  backend::Tensor memory;
  int64_t user = -1;
  std::vector<bool> is_written;             // By tensor of the user.
  std::unique_ptr<backend::Event> reduced;  // Or consumed. Until the compute stream has waited.
};

struct UnitBuffers {
  int64_t shard_count = 0;  // Elements of this rank.
  int64_t shard_begin = 0;  // Its first one, in the padded unit.
  backend::Tensor master, gradient;
  backend::Tensor copy;  // Of the masters in the compute dtype; absent where they are that.
  bool is_copied = false;
  bool has_gradient = false;  // Sharded: something was added to `gradient` since it was discarded.
  bool is_gathered = false;
  size_t weight_place = 0, gradient_place = 0;
};

struct Buffers {
  std::vector<UnitBuffers> units;
  std::vector<WeightPlace> weights;
  std::vector<GradientPlace> gradients;
};

// Who holds what. `rank` of `rank_count` is this rank's part in sharding: 0 of 1 if replicated.
struct Share {
  int rank = 0;
  int rank_count = 1;
  Parameters::Options options;
  backend::DType compute_dtype = backend::DType::kFloat32;

  bool is_lean() const { return options.memory == Parameters::Memory::kLean; }
};

using Allocate = std::function<backend::Tensor(BufferKind kind, backend::DType dtype, int64_t count,
                                               const std::string& label)>;
Buffers make_buffers(const Layout& layout, const Share& share, const Allocate& allocate);

}  // namespace shard
