// One rank's shards, and the whole units around them: see buffers.h for what lies where.
#include "shard/parameters.h"

#include <algorithm>

#include "backend/quantization.h"
#include "base/thread.h"
#include "shard/state.h"

namespace shard {

using backend::Tensor;

namespace {

Share make_share(const backend::Backend& backend, const Parameters::Options& options) {
  const backend::Communicator& communicator = *backend.communicator;
  const bool is_shared_out = options.sharding != Sharding::kReplicated;
  return {.rank = is_shared_out ? communicator.rank() : 0,
          .rank_count = is_shared_out ? communicator.rank_count() : 1,
          .options = options,
          .compute_dtype = backend.device->compute_dtype()};
}

}  // namespace

Parameters::State::State(const Layout& layout_, backend::Backend& backend_, const Options& options)
    : layout(layout_),
      backend(backend_),
      share(make_share(backend_, options)),
      meter(*backend_.device) {
  CHECK(!share.is_lean() || !has_other_ranks());
  buffers = make_buffers(
      layout, share,
      [this](BufferKind, backend::DType dtype, int64_t count, const std::string& label) {
        storage.push_back(device().allocate(count * backend::bytes_per_element(dtype), label));
        return storage.back()->tensor(dtype, {count});
      });
}

std::unique_ptr<backend::Event> Parameters::State::communicate(
    const std::function<void(backend::Stream&)>& body) {
  meter.exposed([&] {
    device().wait(communication(), *device().record(compute()));
    body(communication());
  });
  return device().record(communication());
}

void Parameters::State::compute_waits(std::unique_ptr<backend::Event>& event) {
  if (!event) return;
  meter.exposed([&] { device().wait(compute(), *event); });
  event.reset();
}

int64_t Parameters::State::link_bytes(int64_t bytes) const {
  const int ranks = communicator().rank_count();
  return bytes / ranks * (ranks - 1);
}

Parameters::Parameters(const Layout& layout, backend::Backend& backend, const Options& options)
    : state_(new State(layout, backend, options)) {}

Parameters::Parameters(const Layout& layout, backend::Backend& backend)
    : Parameters(layout, backend, Options{}) {}

Parameters::~Parameters() = default;

const Layout& Parameters::layout() const {
  return state_->layout;
}

bool Parameters::is_lean() const {
  return state_->share.is_lean();
}

bool Parameters::is_sharded() const {
  return state_->is_sharded();
}

void Parameters::start_traffic() {
  state_->meter.start();
}

Traffic Parameters::stop_traffic() {
  return state_->meter.stop();
}

void Parameters::initialize(uint64_t seed) {
  constexpr int64_t kPieceCount = 1 << 20;
  constexpr int64_t kGrain = 4096;
  base::ThreadPool pool(
      std::max(1, base::available_processors() / state_->communicator().rank_count()));
  std::vector<float> piece;
  for (int64_t u = 0; u < state_->unit_count(); ++u) {
    const UnitBuffers& buffers = state_->unit(u);
    for (const TensorSpec& spec : layout().units[size_t(u)].tensors) {
      const int64_t begin = std::max(spec.offset, buffers.shard_begin);
      const int64_t end = std::min(spec.offset + spec.shape.element_count(),
                                   buffers.shard_begin + buffers.shard_count);
      for (int64_t at = begin; at < end; at += kPieceCount) {
        piece.resize(size_t(std::min(kPieceCount, end - at)));
        pool.parallel_for(int64_t(piece.size()), kGrain, [&](int64_t from, int64_t to, int) {
          fill_initial(spec, seed, at - spec.offset + from,
                       std::span(piece).subspan(size_t(from), size_t(to - from)));
        });
        copy_masters_from_host(u, at, piece);
      }
    }
  }
  masters_changed();
}

Tensor Parameters::master_shard(int64_t unit) const {
  return state_->unit(unit).master;
}

namespace {

// Where a range of canonical elements meets a rank's shard.
struct Overlap {
  int64_t in_elements = 0;  // Of the first common element, in the range.
  int64_t in_shard = 0;     // And in the shard.
  int64_t count = 0;
};
Overlap overlap_of(const UnitBuffers& unit, const Unit& spec, int64_t first, int64_t count) {
  CHECK(first >= 0 && count >= 0 && first + count <= spec.element_count);
  const int64_t begin = std::max(first, unit.shard_begin);
  const int64_t end = std::min(first + count, unit.shard_begin + unit.shard_count);
  return {.in_elements = begin - first,
          .in_shard = begin - unit.shard_begin,
          .count = std::max<int64_t>(end - begin, 0)};
}

// Beside whatever comes next on the device, but behind what is queued there now.
void copy_and_wait(backend::Device& device, void* target, const void* source, int64_t byte_count) {
  device.wait(device.copy_stream(), *device.record(device.compute_stream()));
  device.wait(device.copy_stream(), *device.record(device.communication_stream()));
  device.copy(target, source, byte_count, device.copy_stream());
  device.synchronize(device.copy_stream());
}

}  // namespace

void Parameters::copy_shard_to_host(const Tensor& shard, int64_t unit, int64_t first,
                                    std::span<float> elements) const {
  const Overlap overlap =
      overlap_of(state_->unit(unit), layout().units[size_t(unit)], first, int64_t(elements.size()));
  if (overlap.count == 0) return;
  const Tensor part = shard.slice(overlap.in_shard, {overlap.count});
  const auto target = elements.subspan(size_t(overlap.in_elements), size_t(overlap.count));
  if (part.dtype == backend::DType::kFloat32) {
    return copy_and_wait(state_->device(), target.data(), part.data, part.byte_count());
  }
  std::vector<uint16_t> halves(target.size());
  copy_and_wait(state_->device(), halves.data(), part.data, part.byte_count());
  std::ranges::transform(halves, target.begin(), backend::from_bfloat16);
}

void Parameters::copy_shard_from_host(const Tensor& shard, int64_t unit, int64_t first,
                                      std::span<const float> elements) const {
  const Overlap overlap =
      overlap_of(state_->unit(unit), layout().units[size_t(unit)], first, int64_t(elements.size()));
  if (overlap.count == 0) return;
  const Tensor part = shard.slice(overlap.in_shard, {overlap.count});
  const auto source = elements.subspan(size_t(overlap.in_elements), size_t(overlap.count));
  if (part.dtype == backend::DType::kFloat32) {
    return copy_and_wait(state_->device(), part.data, source.data(), part.byte_count());
  }
  std::vector<uint16_t> halves(source.size());
  std::ranges::transform(source, halves.begin(), backend::to_bfloat16);
  copy_and_wait(state_->device(), part.data, halves.data(), part.byte_count());
}

void Parameters::copy_masters_to_host(int64_t unit, int64_t first,
                                      std::span<float> elements) const {
  copy_shard_to_host(master_shard(unit), unit, first, elements);
}

void Parameters::copy_masters_from_host(int64_t unit, int64_t first,
                                        std::span<const float> elements) {
  state_->forget_whole(unit);
  state_->unit(unit).is_copied = false;
  copy_shard_from_host(master_shard(unit), unit, first, elements);
}

}  // namespace shard
