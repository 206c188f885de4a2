// Gradients on their way from the operations that make them to the shards. With one rank, or
// replicated, operations write and add to the shard itself. Otherwise they write to a place that
// units share; reduce() sums it over the ranks, and the result is added to the shard, beside
// whatever the compute stream does next. Nothing is zeroed to be added to: what comes first after
// discard_gradients() is written over what is there.
#include <algorithm>

#include "shard/state.h"

namespace shard {

using backend::Tensor;

// The place of a unit's gradient, of which nothing is written yet if another unit had it or it was
// discarded.
GradientPlace& Parameters::State::open_gradient(int64_t u) {
  GradientPlace& place = gradient_place(u);
  if (place.user == u) return place;
  CHECK(place.user < 0, "unit {} has a gradient that was not reduced", place.user);
  place.user = u;
  place.is_written.assign(layout.units[size_t(u)].tensors.size(), false);
  compute_waits(place.reduced);
  return place;
}

// What nobody wrote is zero, the padding too.
void Parameters::State::complete_gradient(int64_t u) {
  GradientPlace& place = open_gradient(u);
  const Unit& spec = layout.units[size_t(u)];
  for (size_t i = 0; i < spec.tensors.size(); ++i) {
    if (place.is_written[i]) continue;
    ops().zero(place.memory.slice(spec.tensors[i].offset, spec.tensors[i].shape), compute());
    place.is_written[i] = true;
  }
  // In memory that no other unit uses it is as it was allocated.
  if (!is_sharded() && !share.is_lean()) return;
  const int64_t padding = layout.padded_count(u, share.rank_count) - spec.element_count;
  if (padding > 0) ops().zero(place.memory.slice(spec.element_count, {padding}), compute());
}

Parameters::GradientTarget Parameters::gradient_target(int64_t unit, const std::string& name) {
  State& s = *state_;
  const Unit& spec = s.layout.units.at(size_t(unit));
  const TensorSpec& tensor = spec.find(name);
  GradientPlace& place = s.open_gradient(unit);
  const auto index = size_t(&tensor - spec.tensors.data());
  const bool accumulate = place.is_written[index];
  place.is_written[index] = true;
  return {place.memory.slice(tensor.offset, tensor.shape), accumulate};
}

Tensor Parameters::gradient(int64_t unit, const std::string& name) {
  const GradientTarget target = gradient_target(unit, name);
  if (!target.accumulate) state_->ops().zero(target.tensor, state_->compute());
  return target.tensor;
}

void Parameters::State::consume_gradient(int64_t u) {
  if (!share.is_lean() || share.options.lean_gradients == 1) return gradient_consumer(u, compute());
  backend::Stream& beside = device().copy_stream();
  device().wait(beside, *device().record(compute()));
  gradient_consumer(u, beside);
  gradient_place(u).reduced = device().record(beside);
}

void Parameters::reduce(int64_t unit) {
  State& s = *state_;
  UnitBuffers& mine = s.unit(unit);
  GradientPlace& place = s.gradient_place(unit);
  s.complete_gradient(unit);
  if (s.is_sharded()) {
    const Tensor whole = s.padded(unit, place.memory);
    const Tensor own = s.own_part(unit, whole);
    const auto sum_up = [&](backend::Stream& stream) {
      s.communicator().reduce_scatter(mine.has_gradient ? own : mine.gradient, whole, stream);
      if (mine.has_gradient) s.ops().add({.out = mine.gradient, .in = own}, stream);
    };
    place.reduced = s.communicate(sum_up);
    place.user = -1;
    mine.has_gradient = true;
    s.meter.count_reduce(s.link_bytes(whole.byte_count()));
  } else if (s.has_other_ranks() && !s.expects_more_micro_batches) {
    s.last_reduction = s.communicate(
        [&](backend::Stream& stream) { s.communicator().all_reduce(mine.gradient, stream); });
    s.meter.count_reduce(2 * s.link_bytes(mine.gradient.byte_count()));
  }
  if (s.gradient_consumer) s.consume_gradient(unit);
  if (is_lean()) place.user = -1;
}

void Parameters::expect_more_micro_batches(bool more) {
  state_->expects_more_micro_batches = more;
}

void Parameters::await_reductions() {
  State& s = *state_;
  s.compute_waits(s.last_reduction);
  for (GradientPlace& place : s.buffers.gradients) s.compute_waits(place.reduced);
}

void Parameters::set_gradient_consumer(GradientConsumer consumer) {
  state_->gradient_consumer = std::move(consumer);
}

void Parameters::discard_gradients() {
  for (UnitBuffers& unit : state_->buffers.units) unit.has_gradient = false;
  for (GradientPlace& place : state_->buffers.gradients) place.user = -1;
}

Tensor Parameters::gradient_shard(int64_t unit) const {
  return state_->unit(unit).gradient;
}

void Parameters::sum_over_shards(const Tensor& values) {
  State& s = *state_;
  if (!s.is_sharded()) return;
  s.meter.exposed([&] { s.communicator().all_reduce(values, s.compute()); });
  s.meter.count_reduce(2 * s.link_bytes(values.byte_count()));
}

}  // namespace shard
