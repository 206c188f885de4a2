// Whole units for as long as they are used. What was gathered stays in its place until another unit
// needs it: so the last blocks of a forward pass are still there when the backward begins, and the
// first ones when the next micro-batch does.
#include "shard/state.h"

namespace shard {

using backend::Tensor;

// Starts what is missing for the whole unit to be in its place.
void Parameters::State::fetch(int64_t u) {
  UnitBuffers& mine = unit(u);
  WeightPlace& place = weight_place(u);
  if (place.holder == u) return;
  CHECK(place.holder < 0 || !unit(place.holder).is_gathered, "unit {} takes the place of {}", u,
        place.holder);
  place.holder = u;
  if (mine.copy && !mine.is_copied) ops().cast({.out = mine.copy, .in = mine.master}, compute());
  mine.is_copied = true;
  if (!is_sharded()) return;
  const Tensor whole = padded(u, place.memory);
  place.filled = communicate([&](backend::Stream& stream) {
    communicator().all_gather(whole, mine.copy ? mine.copy : mine.master, stream);
  });
  meter.count_gather(link_bytes(whole.byte_count()));
}

// The masters have changed.
void Parameters::State::forget_whole(int64_t u) {
  CHECK(!unit(u).is_gathered, "unit {}", u);
  if (weight_place(u).holder == u) weight_place(u).holder = -1;
}

void Parameters::gather(int64_t unit) {
  State& s = *state_;
  UnitBuffers& mine = s.unit(unit);
  CHECK(!mine.is_gathered, "unit {}", unit);
  // A rank that ran further ahead could fill the queue of its device with work that waits for a
  // rank which cannot queue its own.
  if (s.releases[0]) s.device().synchronize(*s.releases[0]);
  s.fetch(unit);
  s.compute_waits(s.weight_place(unit).filled);
  mine.is_gathered = true;
}

void Parameters::prefetch(int64_t unit) {
  if (state_->is_sharded()) state_->fetch(unit);
}

void Parameters::release(int64_t unit) {
  State& s = *state_;
  CHECK(s.unit(unit).is_gathered, "unit {}", unit);
  s.unit(unit).is_gathered = false;
  if (!s.has_other_ranks()) return;
  s.releases[0] = std::move(s.releases[1]);
  s.releases[1] = s.device().record(s.compute());
}

Tensor Parameters::weight(int64_t unit, const std::string& name) const {
  State& s = *state_;
  CHECK(s.unit(unit).is_gathered, "{} of unit {}", name, unit);
  const TensorSpec& spec = s.layout.units[size_t(unit)].find(name);
  return s.weight_place(unit).memory.slice(spec.offset, spec.shape);
}

Tensor Parameters::copy_shard(int64_t unit) const {
  return state_->unit(unit).copy;
}

void Parameters::masters_updated(int64_t unit) {
  State& s = *state_;
  s.forget_whole(unit);
  s.unit(unit).is_copied = true;
  if (!s.is_sharded()) s.weight_place(unit).holder = unit;
}

void Parameters::masters_changed() {
  for (int64_t u = 0; u < state_->unit_count(); ++u) {
    state_->forget_whole(u);
    state_->unit(u).is_copied = false;
  }
}

}  // namespace shard
