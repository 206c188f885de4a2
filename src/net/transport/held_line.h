// A line of a given rate and length, for messages: each link has a queue, and whenever the line is
// free the next link's oldest message goes on it, so that a link with much to send does not hold up
// the heartbeats of another. A line may also be for chunks alone: what else is the oldest of its
// link goes at once, and the chunks after it wait for the time that it takes. Only times are kept
// here; the caller says what time it is.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <variant>

#include "net/message.h"

namespace net {

class HeldLine {
 public:
  // In the place of a message: the link's end, which comes after all that was put in before.
  struct End {
    std::string reason;
  };
  struct Parcel {
    LinkId link = 0;
    std::variant<Message, End> what;
  };

  enum class Holds { kAll, kChunks };
  // 0 bytes/s: only the delay.
  HeldLine(double bytes_per_second, Duration delay, Holds holds = Holds::kAll)
      : bytes_per_second_(bytes_per_second), delay_(delay), holds_(holds) {}

  void put(Parcel parcel, Instant now);
  // The next whose time has come, if there is one; `now` never falls.
  std::optional<Parcel> take(Instant now);
  // When take() is to be tried again; nothing if nothing is held.
  std::optional<Instant> next() const;

  // Of what has not gone on the line yet.
  int64_t queued_bytes(LinkId link) const;
  int64_t queued_bytes() const { return queued_bytes_; }
  // Drops what is held of a link.
  void forget(LinkId link);

 private:
  struct Waiting {
    Parcel parcel;
    int64_t bytes = 0;
    Instant since{};
  };
  struct Sent {
    Parcel parcel;
    Instant arrives{};
  };

  using Queues = std::map<LinkId, std::deque<Waiting>>;

  void put_on_line(Instant now);
  Queues::iterator next_queue(Instant now);
  bool goes_at_once(const Waiting& waiting) const;

  const double bytes_per_second_;
  const Duration delay_;
  const Holds holds_;
  Queues waiting_;  // No queue is empty.
  int64_t queued_bytes_ = 0;
  LinkId served_last_ = 0;
  Instant free_at_{};
  std::deque<Sent> sent_;
};

}  // namespace net
