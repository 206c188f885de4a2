// A member's part in handing out the run's samples: what it asked for and has not got, and how far
// it has heard that the run is.
#pragma once

#include <algorithm>
#include <optional>

#include "net/member.h"

namespace net {

class SampleRequest {
 public:
  explicit SampleRequest(uint64_t heard) : heard_(heard) {}

  uint64_t heard() const { return heard_; }  // So many are handed out, at least.

  void need(uint64_t count) { needed_ = count; }
  // What the coordinator must be told, again by whoever has become active again.
  std::optional<NeedSamples> open() const {
    return needed_ > 0 ? std::optional(NeedSamples{needed_}) : std::nullopt;
  }
  base::Result<SamplesGranted> on_samples(const Samples& samples) {
    if (samples.count > 0 && samples.count != needed_)
      return base::Failure{"samples that were not asked for"};
    if (samples.count > 0) needed_ = 0;
    heard_ = std::max(heard_, samples.first + samples.count);
    return SamplesGranted{.first = samples.first, .count = samples.count};
  }

 private:
  uint64_t heard_;
  uint64_t needed_ = 0;
};

}  // namespace net
