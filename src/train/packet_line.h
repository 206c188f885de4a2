// A line of some rate with a queue in front, as arithmetic over times: when will what is put in now
// have gone through?
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

namespace train {

class PacketLine {
 public:
  // 0 bytes/s: everything goes through at once. The queue always holds a burst of 64 KiB, which is
  // what a host hands over as one packet.
  PacketLine(double bytes_per_second, double queue_seconds)
      : bytes_per_second_(bytes_per_second), queue_seconds_(queue_seconds) {
    if (bytes_per_second > 0)
      queue_seconds_ = std::max(queue_seconds, 2 * 65536 / bytes_per_second);
  }

  // The time at which it is through, or nothing if the queue is full. `now` never falls.
  std::optional<double> put(int64_t bytes, double now) {
    if (bytes_per_second_ <= 0) return now;
    const double begin = std::max(free_at_, now);
    if (begin - now > queue_seconds_) return std::nullopt;
    free_at_ = begin + double(bytes) / bytes_per_second_;
    return free_at_;
  }

 private:
  double bytes_per_second_, queue_seconds_;
  double free_at_ = 0;
};

}  // namespace train
