#include "shard/state.h"

namespace shard {

void TrafficMeter::start() {
  is_running_ = true;
  traffic_ = {};
  stalls_.clear();
}

Traffic TrafficMeter::stop() {
  is_running_ = false;
  device_.synchronize(device_.compute_stream());
  for (const auto& [begin, end] : stalls_)
    traffic_.exposed_seconds += device_.seconds_between(*begin, *end);
  stalls_.clear();
  return traffic_;
}

}  // namespace shard
