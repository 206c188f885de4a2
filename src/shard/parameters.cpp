// One rank's shards, and the whole units around them. Where the compute dtype is fp32 and there is
// one rank, the whole unit is the shard and nothing moves. Otherwise each unit has a buffer for the
// gathered weights; with several ranks it has another one for the whole gradient, which is zero
// except between the first gradient() of a backward and reduce().
#include "shard/parameters.h"

#include <algorithm>

#include "backend/quantization.h"
#include "base/thread.h"

namespace shard {

using backend::Buffer;
using backend::DType;
using backend::Tensor;

struct Parameters::UnitBuffers {
  int64_t shard_count = 0;  // Elements of this rank.
  int64_t shard_begin = 0;  // Its first one, in the padded unit.
  Tensor master, gradient;  // The shards.
  Tensor whole_weight;  // The padded unit in the compute dtype; the master itself if nothing has to
                        // move.
  Tensor whole_gradient;  // The padded unit in fp32; the gradient shard itself with one rank.
  bool is_gathered = false;
  bool is_copied = false;  // This rank's part of whole_weight has the masters' last change,
  bool is_whole = false;   // and so have the others'.
  std::vector<std::unique_ptr<Buffer>> storage;

  bool shares_weight() const { return whole_weight.data == master.data; }
  bool shares_gradient() const { return whole_gradient.data == gradient.data; }
  Tensor own_part(const Tensor& whole) const { return whole.slice(shard_begin, {shard_count}); }
};

Parameters::Parameters(const Layout& layout, backend::Backend& backend, Memory memory)
    : layout_(layout), backend_(backend), memory_(memory) {
  const int rank_count = backend_.communicator->rank_count();
  const DType compute_dtype = backend_.device->compute_dtype();
  const DType master_dtype = is_lean() ? compute_dtype : DType::kFloat32;
  CHECK(!is_lean() || rank_count == 1, "{} ranks", rank_count);
  int64_t largest_count = 0;
  for (size_t u = 0; u < layout_.units.size(); ++u) {
    auto buffers = std::make_unique<UnitBuffers>();
    const int64_t padded_count = layout_.padded_count(int64_t(u), rank_count);
    const auto allocate = [&](DType dtype, int64_t count, const char* what) {
      buffers->storage.push_back(backend_.device->allocate(
          count * backend::bytes_per_element(dtype), layout_.units[u].name + " " + what));
      return buffers->storage.back()->tensor(dtype, {count});
    };
    buffers->shard_count = padded_count / rank_count;
    buffers->shard_begin = buffers->shard_count * backend_.communicator->rank();
    buffers->master = allocate(master_dtype, buffers->shard_count, "masters");
    buffers->whole_weight = rank_count == 1 && compute_dtype == master_dtype
                                ? buffers->master
                                : allocate(compute_dtype, padded_count, "gathered weights");
    if (!is_lean()) {
      buffers->gradient = allocate(DType::kFloat32, buffers->shard_count, "gradients");
      buffers->whole_gradient = rank_count == 1
                                    ? buffers->gradient
                                    : allocate(DType::kFloat32, padded_count, "whole gradients");
    }
    largest_count = std::max(largest_count, padded_count);
    units_.push_back(std::move(buffers));
  }
  if (!is_lean()) return;
  common_gradient_ =
      backend_.device->allocate(largest_count * int64_t{sizeof(float)}, "the gradient of one unit");
  for (auto& buffers : units_) {
    buffers->gradient = common_gradient_->tensor(DType::kFloat32, {buffers->shard_count});
    buffers->whole_gradient = buffers->gradient;
  }
}

Parameters::~Parameters() = default;

void Parameters::initialize(uint64_t seed) {
  constexpr int64_t kPieceCount = 1 << 20;
  constexpr int64_t kGrain = 4096;
  base::ThreadPool pool(
      std::max(1, base::available_processors() / backend_.communicator->rank_count()));
  std::vector<float> piece;
  for (size_t u = 0; u < units_.size(); ++u) {
    const UnitBuffers& buffers = *units_[u];
    for (const TensorSpec& spec : layout_.units[u].tensors) {
      const int64_t begin = std::max(spec.offset, buffers.shard_begin);
      const int64_t end = std::min(spec.offset + spec.shape.element_count(),
                                   buffers.shard_begin + buffers.shard_count);
      for (int64_t at = begin; at < end; at += kPieceCount) {
        piece.resize(size_t(std::min(kPieceCount, end - at)));
        pool.parallel_for(int64_t(piece.size()), kGrain, [&](int64_t from, int64_t to, int) {
          fill_initial(spec, seed, at - spec.offset + from,
                       std::span(piece).subspan(size_t(from), size_t(to - from)));
        });
        copy_masters_from_host(int64_t(u), at, piece);
      }
    }
  }
  masters_changed();
}

void Parameters::gather(int64_t unit) {
  UnitBuffers& buffers = *units_.at(size_t(unit));
  CHECK(!buffers.is_gathered, "unit {}", unit);
  buffers.is_gathered = true;
  if (buffers.shares_weight() || buffers.is_whole) return;
  backend::Stream& stream = backend_.device->compute_stream();
  const Tensor own_part = buffers.own_part(buffers.whole_weight);
  if (!buffers.is_copied) backend_.ops->cast({.out = own_part, .in = buffers.master}, stream);
  if (backend_.communicator->rank_count() > 1) {
    backend_.communicator->all_gather(buffers.whole_weight, own_part, stream);
  }
  buffers.is_copied = buffers.is_whole = true;
}

void Parameters::release(int64_t unit) {
  UnitBuffers& buffers = *units_.at(size_t(unit));
  CHECK(buffers.is_gathered, "unit {}", unit);
  buffers.is_gathered = false;
}

Tensor Parameters::weight(int64_t unit, const std::string& name) const {
  const UnitBuffers& buffers = *units_.at(size_t(unit));
  CHECK(buffers.is_gathered, "{} of unit {}", name, unit);
  const TensorSpec& spec = layout_.units[size_t(unit)].find(name);
  return buffers.whole_weight.slice(spec.offset, spec.shape);
}

Tensor Parameters::gradient(int64_t unit, const std::string& name) {
  if (is_lean()) {
    CHECK(unit_with_gradient_ == unit || unit_with_gradient_ < 0,
          "unit {} has a gradient that was not reduced", unit_with_gradient_);
    unit_with_gradient_ = unit;
  }
  const TensorSpec& spec = layout_.units.at(size_t(unit)).find(name);
  return units_[size_t(unit)]->whole_gradient.slice(spec.offset, spec.shape);
}

void Parameters::reduce(int64_t unit) {
  UnitBuffers& buffers = *units_.at(size_t(unit));
  if (!buffers.shares_gradient()) {
    backend::Stream& stream = backend_.device->compute_stream();
    const Tensor own_part = buffers.own_part(buffers.whole_gradient);
    backend_.communicator->reduce_scatter(own_part, buffers.whole_gradient, stream);
    backend_.ops->add({.out = buffers.gradient, .in = own_part}, stream);
    backend_.ops->zero(buffers.whole_gradient, stream);
  }
  if (gradient_consumer_) gradient_consumer_(unit);
  unit_with_gradient_ = -1;
}

// Lean: the one buffer is zero whenever no unit is using it.
void Parameters::zero_gradients() {
  if (is_lean()) return;
  for (auto& buffers : units_)
    backend_.ops->zero(buffers->gradient, backend_.device->compute_stream());
}

Tensor Parameters::master_shard(int64_t unit) const {
  return units_.at(size_t(unit))->master;
}

Tensor Parameters::gradient_shard(int64_t unit) const {
  return units_.at(size_t(unit))->gradient;
}

Tensor Parameters::copy_shard(int64_t unit) const {
  const UnitBuffers& buffers = *units_.at(size_t(unit));
  return buffers.shares_weight() ? Tensor{} : buffers.own_part(buffers.whole_weight);
}

void Parameters::masters_updated(int64_t unit) {
  UnitBuffers& buffers = *units_.at(size_t(unit));
  CHECK(!buffers.is_gathered, "unit {}", unit);
  buffers.is_copied = true;
  buffers.is_whole = backend_.communicator->rank_count() == 1;
}

void Parameters::masters_changed() {
  for (auto& buffers : units_) {
    CHECK(!buffers->is_gathered);
    buffers->is_copied = buffers->is_whole = false;
  }
}

// Beside whatever comes next on the compute stream, but behind what is queued there now.
void Parameters::copy_and_wait(void* target, const void* source, int64_t byte_count) const {
  backend::Device& device = *backend_.device;
  device.wait(device.copy_stream(), *device.record(device.compute_stream()));
  device.copy(target, source, byte_count, device.copy_stream());
  device.synchronize(device.copy_stream());
}

void Parameters::copy_shard_to_host(const Tensor& shard, int64_t unit, int64_t first,
                                    std::span<float> elements) const {
  const Overlap overlap = overlap_with_shard(unit, first, int64_t(elements.size()));
  if (overlap.count == 0) return;
  const Tensor part = shard.slice(overlap.in_shard, {overlap.count});
  const auto target = elements.subspan(size_t(overlap.in_elements), size_t(overlap.count));
  if (part.dtype == DType::kFloat32) {
    return copy_and_wait(target.data(), part.data, part.byte_count());
  }
  std::vector<uint16_t> halves(target.size());
  copy_and_wait(halves.data(), part.data, part.byte_count());
  std::ranges::transform(halves, target.begin(), backend::from_bfloat16);
}

void Parameters::copy_shard_from_host(const Tensor& shard, int64_t unit, int64_t first,
                                      std::span<const float> elements) const {
  const Overlap overlap = overlap_with_shard(unit, first, int64_t(elements.size()));
  if (overlap.count == 0) return;
  const Tensor part = shard.slice(overlap.in_shard, {overlap.count});
  const auto source = elements.subspan(size_t(overlap.in_elements), size_t(overlap.count));
  if (part.dtype == DType::kFloat32) {
    return copy_and_wait(part.data, source.data(), part.byte_count());
  }
  std::vector<uint16_t> halves(source.size());
  std::ranges::transform(source, halves.begin(), backend::to_bfloat16);
  copy_and_wait(part.data, halves.data(), part.byte_count());
}

void Parameters::copy_masters_to_host(int64_t unit, int64_t first,
                                      std::span<float> elements) const {
  copy_shard_to_host(master_shard(unit), unit, first, elements);
}

void Parameters::copy_masters_from_host(int64_t unit, int64_t first,
                                        std::span<const float> elements) {
  UnitBuffers& buffers = *units_.at(size_t(unit));
  CHECK(!buffers.is_gathered);
  copy_shard_from_host(buffers.master, unit, first, elements);
  buffers.is_copied = buffers.is_whole = false;
}

Parameters::Overlap Parameters::overlap_with_shard(int64_t unit, int64_t first,
                                                   int64_t count) const {
  CHECK(first >= 0 && count >= 0 && first + count <= layout_.units.at(size_t(unit)).element_count);
  const UnitBuffers& buffers = *units_[size_t(unit)];
  const int64_t begin = std::max(first, buffers.shard_begin);
  const int64_t end = std::min(first + count, buffers.shard_begin + buffers.shard_count);
  return {.in_elements = begin - first,
          .in_shard = begin - buffers.shard_begin,
          .count = std::max<int64_t>(end - begin, 0)};
}

}  // namespace shard
