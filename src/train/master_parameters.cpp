#include "train/master_parameters.h"

#include "backend/quantization.h"
#include "base/numa.h"

namespace train {

namespace {

bool is_gpu(const backend::Device& device) {
  return device.compute_dtype() == backend::DType::kBfloat16;
}

}  // namespace

MasterParameters::OneRank::OneRank(shard::Parameters& parameters_, backend::Backend& backend_)
    : parameters(parameters_), backend(&backend_) {
  backend::Device& device = *backend->device;
  if (!is_gpu(device)) return;
  on_copies = std::make_unique<DeviceMasters>(*backend, device.copy_stream());
  on_side = std::make_unique<DeviceMasters>(*backend, device.side_stream());
}

MasterParameters::MasterParameters(RankTeam& ranks) {
  for (int r = 0; r < ranks.count(); ++r) {
    Engine& engine = ranks.rank(r).engine;
    ranks_.push_back(std::make_unique<OneRank>(engine.parameters, engine.backend));
  }
}

void MasterParameters::read(int64_t unit, int64_t first, std::span<float> elements) {
  for (const auto& rank : ranks_) {
    const std::lock_guard lock(rank->copies);
    rank->parameters.copy_masters_to_host(unit, first, elements);
    if (!rank->parameters.is_sharded()) return;  // It has everything.
  }
}

void MasterParameters::write(int64_t unit, int64_t first, std::span<const float> elements) {
  for (const auto& rank : ranks_) {
    const std::lock_guard lock(rank->copies);
    rank->parameters.copy_masters_from_host(unit, first, elements);
  }
}

void MasterParameters::round(std::span<float> elements) const {
  const backend::Tensor shard = ranks_.front()->parameters.master_shard(0);
  if (shard.dtype == backend::DType::kFloat32) return;
  for (float& value : elements) value = backend::from_bfloat16(backend::to_bfloat16(value));
}

// Each copy to or from a GPU takes as long as tens of thousands of elements need on the bus.
int64_t MasterParameters::elements_at_a_time() const {
  return is_gpu(device()) ? kDeviceElements : LocalParameters::elements_at_a_time();
}

std::unique_ptr<backend::Buffer> MasterParameters::allocate(int64_t byte_count) {
  const base::InterleavedMemory for_all_ranks;
  return device().allocate_host(byte_count, "outer state");
}

std::vector<outer::LocalParameters::Range> MasterParameters::device_ranges(int64_t unit,
                                                                           Range range) const {
  if (!is_gpu(device())) return {};
  if (!ranks_.front()->parameters.is_sharded()) return {range};
  std::vector<Range> ranges;
  for (const auto& rank : ranks_) {
    const shard::Parameters::Range own = rank->parameters.shard_range(unit);
    const int64_t first = std::max(own.first, range.first);
    const int64_t end = std::min(own.first + own.count, range.first + range.count);
    if (first < end) ranges.push_back({.first = first, .count = end - first});
  }
  return ranges;
}

bool MasterParameters::OneRank::has(int64_t unit, int64_t element) const {
  const shard::Parameters::Range own = parameters.shard_range(unit);
  return element >= own.first && element < own.first + own.count;
}

template <class Body>
auto MasterParameters::OneRank::work(int64_t unit, int64_t first, size_t count, const Body& body) {
  const int64_t in_shard = first - parameters.shard_range(unit).first;
  const backend::Tensor masters = parameters.master_shard(unit).slice(in_shard, {int64_t(count)});
  const bool is_side = turn++ % 2 != 0;
  const std::lock_guard lock(is_side ? side : copies);
  return body(is_side ? *on_side : *on_copies, masters);
}

bool MasterParameters::encode_difference(int64_t unit, int64_t first, std::span<const float> outer,
                                         const Blocks<std::byte>& blocks) {
  // Where all ranks have it, they take turns.
  const size_t begin = size_t(first / kDeviceElements);
  for (size_t i = 0; i < ranks_.size(); ++i) {
    OneRank& rank = *ranks_[(begin + i) % ranks_.size()];
    if (!rank.has(unit, first)) continue;
    return rank.work(unit, first, outer.size(), [&](DeviceMasters& on, const auto& masters) {
      return on.encode_difference(masters, outer, blocks);
    });
  }
  CHECK(false, "no rank has element {} of unit {}", first, unit);
  return false;
}

void MasterParameters::add(int64_t unit, int64_t first, std::span<const float> change,
                           const Blocks<const std::byte>* blocks) {
  for (const auto& rank : ranks_) {
    if (!rank->has(unit, first)) continue;
    rank->work(unit, first, change.size(),
               [&](DeviceMasters& on, const auto& masters) { on.add(masters, change, blocks); });
  }
}

}  // namespace train
