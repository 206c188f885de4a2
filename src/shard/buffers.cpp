#include "shard/buffers.h"

#include <algorithm>

namespace shard {

using backend::DType;
using backend::Tensor;

namespace {

// Full sharding: the units between the first and the last use two places in turn.
constexpr int64_t kTurns = 2;

class Maker {
 public:
  Maker(const Layout& layout, const Share& share, const Allocate& allocate)
      : layout_(layout), share_(share), allocate_(allocate) {}

  Buffers make() {
    for (int64_t u = 0; u < unit_count(); ++u) make_shard(u);
    if (share_.is_lean()) {
      share_gradients();
    } else if (share_.rank_count > 1) {
      make_whole_gradients();
    } else {
      for (int64_t u = 0; u < unit_count(); ++u) keep_whole_gradient(u);
    }
    if (share_.rank_count > 1 && share_.options.sharding == Sharding::kFull) {
      make_whole_weights();
    } else {
      for (int64_t u = 0; u < unit_count(); ++u) keep_whole_weights(u);
    }
    return std::move(buffers_);
  }

 private:
  int64_t unit_count() const { return int64_t(layout_.units.size()); }
  int64_t padded_count(int64_t u) const { return layout_.padded_count(u, share_.rank_count); }
  const std::string& name(int64_t u) const { return layout_.units[size_t(u)].name; }
  UnitBuffers& unit(int64_t u) { return buffers_.units[size_t(u)]; }
  bool is_end(int64_t u) const { return u == 0 || u + 1 == unit_count(); }
  DType master_dtype() const { return share_.is_lean() ? share_.compute_dtype : DType::kFloat32; }
  bool needs_copy() const { return master_dtype() != share_.compute_dtype; }

  // Of the units between the first and the last.
  int64_t largest_middle() const {
    int64_t count = 0;
    for (int64_t u = 1; u + 1 < unit_count(); ++u) count = std::max(count, padded_count(u));
    return count;
  }
  int64_t largest_end() const { return std::max(padded_count(0), padded_count(unit_count() - 1)); }

  void make_shard(int64_t u) {
    UnitBuffers unit;
    unit.shard_count = padded_count(u) / share_.rank_count;
    unit.shard_begin = unit.shard_count * share_.rank;
    unit.master =
        allocate_(BufferKind::kMasters, master_dtype(), unit.shard_count, name(u) + " masters");
    if (!share_.is_lean()) {
      unit.gradient = allocate_(BufferKind::kGradients, DType::kFloat32, unit.shard_count,
                                name(u) + " gradients");
    }
    buffers_.units.push_back(std::move(unit));
  }

  // Lean: one gradient for all, as large as the largest unit. With two the blocks alternate, and
  // the first and the last unit use the one that is as large as they are.
  void share_gradients() {
    const auto place = [&](int64_t count) {
      buffers_.gradients.emplace_back().memory =
          allocate_(BufferKind::kGradients, DType::kFloat32, count, "the gradient of one unit");
    };
    place(std::max(largest_middle(), largest_end()));
    if (share_.options.lean_gradients == 2) place(largest_middle());
    const int64_t places = int64_t(buffers_.gradients.size());
    for (int64_t u = 0; u < unit_count(); ++u) {
      UnitBuffers& unit = this->unit(u);
      unit.gradient_place = is_end(u) ? 0 : size_t((unit_count() - 1 - u) % places);
      unit.gradient = buffers_.gradients[unit.gradient_place].memory.slice(0, {unit.shard_count});
    }
  }

  // The shard is the whole.
  void keep_whole_gradient(int64_t u) {
    unit(u).gradient_place = buffers_.gradients.size();
    buffers_.gradients.emplace_back().memory = unit(u).gradient;
  }

  // The embedding's gradient comes last and the head's first, so one place serves both.
  void make_whole_gradients() {
    const auto place = [&](int64_t count, const std::string& label) {
      buffers_.gradients.emplace_back();
      buffers_.gradients.back().memory =
          allocate_(BufferKind::kWholeGradients, DType::kFloat32, count, label);
    };
    place(largest_end(), "whole gradients of the first and the last unit");
    for (int64_t turn = 0; turn < std::min(kTurns, unit_count() - 2); ++turn)
      place(largest_middle(), "whole gradients");
    const size_t turns = buffers_.gradients.size() - 1;
    for (int64_t u = 0; u < unit_count(); ++u)
      unit(u).gradient_place = is_end(u) ? 0 : 1 + size_t(u) % turns;
  }

  // A place of its own, the masters' if they are what is computed with.
  void keep_whole_weights(int64_t u) {
    UnitBuffers& unit = this->unit(u);
    unit.weight_place = buffers_.weights.size();
    WeightPlace place;
    if (share_.rank_count == 1 && !needs_copy()) {
      place.memory = unit.master;
    } else {
      place.memory = allocate_(BufferKind::kWholeWeights, share_.compute_dtype, padded_count(u),
                               name(u) + " weights");
      unit.copy = place.memory.slice(unit.shard_begin, {unit.shard_count});
    }
    buffers_.weights.push_back(std::move(place));
  }

  void make_whole_weights() {
    const auto place = [&](int64_t count, const std::string& label) {
      buffers_.weights.emplace_back();
      buffers_.weights.back().memory =
          allocate_(BufferKind::kWholeWeights, share_.compute_dtype, count, label);
      return buffers_.weights.size() - 1;
    };
    for (int64_t turn = 0; turn < std::min(kTurns, unit_count() - 2); ++turn)
      place(largest_middle(), "gathered weights");
    const size_t turns = buffers_.weights.size();
    for (int64_t u = 0; u < unit_count(); ++u) {
      UnitBuffers& unit = this->unit(u);
      unit.weight_place =
          is_end(u) ? place(padded_count(u), name(u) + " gathered weights") : size_t(u) % turns;
      if (!needs_copy()) continue;
      unit.copy = allocate_(BufferKind::kComputeCopies, share_.compute_dtype, unit.shard_count,
                            name(u) + " compute copy");
    }
  }

  const Layout& layout_;
  const Share& share_;
  const Allocate& allocate_;
  Buffers buffers_;
};

}  // namespace

Buffers make_buffers(const Layout& layout, const Share& share, const Allocate& allocate) {
  return Maker(layout, share, allocate).make();
}

int64_t ParameterBytes::sum() const {
  return masters + gradients + compute_copies + whole_weights + whole_gradients;
}

ParameterBytes planned_bytes(const Layout& layout, const Parameters::Options& options, int ranks,
                             DType compute_dtype) {
  ParameterBytes bytes;
  const auto count = [&](BufferKind kind, DType dtype, int64_t elements, const std::string&) {
    int64_t* const sums[] = {&bytes.masters, &bytes.gradients, &bytes.compute_copies,
                             &bytes.whole_weights, &bytes.whole_gradients};
    const Tensor tensor{nullptr, dtype, {elements}};
    *sums[size_t(kind)] += tensor.byte_count();
    return tensor;
  };
  const bool is_shared_out = options.sharding != Sharding::kReplicated;
  make_buffers(
      layout,
      {.rank_count = is_shared_out ? ranks : 1, .options = options, .compute_dtype = compute_dtype},
      count);
  return bytes;
}

}  // namespace shard
