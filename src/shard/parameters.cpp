// One rank's shards, and the whole units around them: see buffers.h for what lies where.
#include "shard/parameters.h"

#include <algorithm>
#include <array>

#include "backend/quantization.h"
#include "base/math.h"
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
  CHECK(share.options.lean_gradients == 1 || share.options.lean_gradients == 2);
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

// Initial values on their way to the device. All threads fill one piece of pinned memory while the
// piece before it is copied.
class Parameters::InitialUpload {
 public:
  InitialUpload(State& state, base::ThreadPool& pool) : state_(state), pool_(pool) {
    int64_t count_max = 0;
    for (const UnitBuffers& unit : state.buffers.units)
      count_max = std::max(count_max, std::min(kPieceCount, unit.shard_count));
    for (Piece& piece : pieces_) {
      piece.memory = device().allocate_host(count_max * int64_t{sizeof(float)}, "initial values");
    }
    device().wait(stream(), *device().record(state.compute()));
    device().wait(stream(), *device().record(state.communication()));
  }

  // This rank's shard of a unit, without the padding.
  void fill(int64_t u, uint64_t seed) {
    const UnitBuffers& unit = state_.unit(u);
    const Unit& spec = state_.layout.units[size_t(u)];
    const int64_t end = std::min(spec.element_count, unit.shard_begin + unit.shard_count);
    for (int64_t begin = unit.shard_begin; begin < end; begin += kPieceCount) {
      const int64_t count = std::min(kPieceCount, end - begin);
      const Tensor target = unit.master.slice(begin - unit.shard_begin, {count});
      void* const source = next_piece();
      pool_.parallel_items(base::div_ceil(count, kGrain), [&](int64_t index, int) {
        const int64_t first = index * kGrain;
        const int64_t part_count = std::min(kGrain, count - first);
        fill_part(spec, seed, begin + first, target.dtype, source, first, part_count);
      });
      device().copy(target.data, source, target.byte_count(), stream());
      pieces_[turn_].copied = device().record(stream());
    }
  }

  void finish() { device().synchronize(stream()); }

 private:
  static constexpr int64_t kPieceCount = 1 << 22;
  static constexpr int64_t kGrain = 1 << 14;

  struct Piece {
    std::unique_ptr<backend::Buffer> memory;
    std::unique_ptr<backend::Event> copied;
  };

  backend::Device& device() const { return state_.device(); }
  backend::Stream& stream() const { return device().copy_stream(); }

  void* next_piece() {
    turn_ = (turn_ + 1) % pieces_.size();
    Piece& piece = pieces_[turn_];
    if (piece.copied) device().synchronize(*piece.copied);
    return piece.memory->data();
  }

  // Elements [first, first + count) of a unit, to element `at` of the piece.
  static void fill_part(const Unit& unit, uint64_t seed, int64_t first, backend::DType dtype,
                        void* piece, int64_t at, int64_t count) {
    if (dtype == backend::DType::kFloat32)
      return fill_unit(unit, seed, first, {static_cast<float*>(piece) + at, size_t(count)});
    std::array<float, size_t(kGrain)> values;
    const std::span<float> part(values.data(), size_t(count));
    fill_unit(unit, seed, first, part);
    std::ranges::transform(part, static_cast<uint16_t*>(piece) + at, backend::to_bfloat16);
  }

  static void fill_unit(const Unit& unit, uint64_t seed, int64_t first, std::span<float> values) {
    const int64_t end = first + int64_t(values.size());
    for (const TensorSpec& spec : unit.tensors) {
      const int64_t from = std::max(first, spec.offset);
      const int64_t to = std::min(end, spec.offset + spec.shape.element_count());
      if (from >= to) continue;
      fill_initial(spec, seed, from - spec.offset,
                   values.subspan(size_t(from - first), size_t(to - from)));
    }
  }

  State& state_;
  base::ThreadPool& pool_;
  std::array<Piece, 2> pieces_;
  size_t turn_ = 0;
};

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
  initialize(seed, std::max(1, base::available_processors() / state_->communicator().rank_count()));
}

void Parameters::initialize(uint64_t seed, int threads) {
  base::ThreadPool pool(threads);
  InitialUpload upload(*state_, pool);
  for (int64_t u = 0; u < state_->unit_count(); ++u) upload.fill(u, seed);
  upload.finish();
  masters_changed();
}

Tensor Parameters::master_shard(int64_t unit) const {
  return state_->unit(unit).master;
}

Parameters::Range Parameters::shard_range(int64_t unit) const {
  const UnitBuffers& buffers = state_->unit(unit);
  const int64_t end = std::min(layout().units[size_t(unit)].element_count,
                               buffers.shard_begin + buffers.shard_count);
  return {.first = buffers.shard_begin, .count = std::max<int64_t>(end - buffers.shard_begin, 0)};
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
