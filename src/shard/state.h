// What the files of this floor share: weights.cpp gathers, gradients.cpp reduces, parameters.cpp
// does the rest.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "shard/buffers.h"
#include "shard/parameters.h"

namespace shard {

// Counts what moves, and times how long the compute stream stands still: for a collective that is
// queued while it has nothing else to do, and when it waits for one. Where a device runs everything
// at once, as the CPU does, that is the whole collective.
class TrafficMeter {
 public:
  explicit TrafficMeter(backend::Device& device) : device_(device) {}

  void start();
  Traffic stop();

  void count_gather(int64_t bytes) { traffic_.gathered_bytes += bytes; }
  void count_reduce(int64_t bytes) { traffic_.reduced_bytes += bytes; }
  template <class Body>
  void exposed(const Body& body) {
    if (!is_running_) return body();
    auto begin = device_.record(device_.compute_stream());
    body();
    stalls_.emplace_back(std::move(begin), device_.record(device_.compute_stream()));
  }

 private:
  backend::Device& device_;
  bool is_running_ = false;
  Traffic traffic_;
  std::vector<std::pair<std::unique_ptr<backend::Event>, std::unique_ptr<backend::Event>>> stalls_;
};

struct Parameters::State {
  State(const Layout& layout, backend::Backend& backend, const Options& options);

  const Layout& layout;
  backend::Backend& backend;
  const Share share;
  std::vector<std::unique_ptr<backend::Buffer>> storage;
  Buffers buffers;
  TrafficMeter meter;

  // The last two releases: the host waits for the first before it queues more.
  std::array<std::unique_ptr<backend::Event>, 2> releases;

  bool expects_more_micro_batches = false;
  std::unique_ptr<backend::Event> last_reduction;  // Until the compute stream has waited for it.
  GradientConsumer gradient_consumer;

  backend::Device& device() const { return *backend.device; }
  backend::Ops& ops() const { return *backend.ops; }
  backend::Communicator& communicator() const { return *backend.communicator; }
  backend::Stream& compute() const { return device().compute_stream(); }
  backend::Stream& communication() const { return device().communication_stream(); }
  bool has_other_ranks() const { return communicator().rank_count() > 1; }
  bool is_sharded() const { return share.rank_count > 1; }
  int64_t unit_count() const { return int64_t(buffers.units.size()); }

  UnitBuffers& unit(int64_t u) { return buffers.units.at(size_t(u)); }
  WeightPlace& weight_place(int64_t u) { return buffers.weights[unit(u).weight_place]; }
  GradientPlace& gradient_place(int64_t u) { return buffers.gradients[unit(u).gradient_place]; }
  backend::Tensor own_part(int64_t u, const backend::Tensor& whole) {
    return whole.slice(unit(u).shard_begin, {unit(u).shard_count});
  }
  backend::Tensor padded(int64_t u, const backend::Tensor& place) const {
    return place.slice(0, {layout.padded_count(u, share.rank_count)});
  }

  // Queues a collective behind all that is on the compute stream now; returns its end.
  std::unique_ptr<backend::Event> communicate(const std::function<void(backend::Stream&)>& body);
  void compute_waits(std::unique_ptr<backend::Event>& event);  // And forgets it.
  // What a collective over `bytes` in all moves over a rank's link.
  int64_t link_bytes(int64_t bytes) const;

  void fetch(int64_t u);
  void forget_whole(int64_t u);
  GradientPlace& open_gradient(int64_t u);
  void complete_gradient(int64_t u);
  void consume_gradient(int64_t u);
};

}  // namespace shard
