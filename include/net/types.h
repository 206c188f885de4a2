// The words that all of net speaks.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"

namespace net {

// A small number that the coordinator gives to a peer for as long as it is a member; freed numbers
// are given again, to the same node if it comes back. It is also the peer's place in the order of
// sums.
using PeerId = uint32_t;
inline constexpr PeerId kNobody = 0xffffffff;
inline constexpr int64_t kMembersMax = 64;

// One direction-less connection, as its own machine sees it. Never used again after it was closed.
using LinkId = uint64_t;

// Monotonic time. Its zero means nothing; only differences on one machine do.
using Instant = std::chrono::nanoseconds;
using Duration = std::chrono::nanoseconds;

struct Endpoint {
  std::string host;
  uint16_t port = 0;
  bool operator==(const Endpoint&) const = default;
  std::string text() const;  // "host:port", "[v6]:port"
};
base::Result<Endpoint> parse_endpoint(const std::string& text);

// Immutable bytes, shared by whoever sends or keeps them.
using Bytes = std::shared_ptr<const std::vector<std::byte>>;

}  // namespace net
