// The stream for products that make gradients of a block's weights. Nothing in the backward reads
// what they make, so they may run beside it and fill what attention, norms and the ends of its own
// products leave idle. Internal to model/.
#pragma once

#include <array>
#include <memory>

#include "backend/device.h"

namespace model {

// In the order in which the backward of a block queues them.
enum class WeightProduct { kDown, kGateUp, kOut, kQkv };

class SideStream {
 public:
  // `device` outlives the object. Unused, all runs on the compute stream.
  SideStream(backend::Device& device, bool is_used) : device_(device), is_used_(is_used) {}

  bool is_used() const { return is_used_; }

  // body(stream) queues the product behind all that is on the compute stream now. What it reads is
  // not to be written again, and what it writes not to be read, before await().
  template <class Body>
  void run(WeightProduct product, const Body& body) {
    if (!is_used_) return body(device_.compute_stream());
    device_.wait(device_.side_stream(), *device_.record(device_.compute_stream()));
    body(device_.side_stream());
    ends_[size_t(product)] = device_.record(device_.side_stream());
  }

  // The compute stream waits for the last such product, and so for all that were queued before it.
  void await(WeightProduct product) {
    std::unique_ptr<backend::Event>& end = ends_[size_t(product)];
    if (!end) return;
    device_.wait(device_.compute_stream(), *end);
    end.reset();
  }

 private:
  backend::Device& device_;
  const bool is_used_;
  std::array<std::unique_ptr<backend::Event>, 4> ends_;
};

}  // namespace model
