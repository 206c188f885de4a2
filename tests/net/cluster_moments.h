// What scenarios with a cluster have in common: acting in a moment of the protocol, and finding
// what came of it.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>

#include "net/cluster.h"

namespace net {

// Does something once, before a message is delivered: exactly in a moment of the protocol.
inline void once_before(Cluster& cluster,
                        std::function<bool(HostId from, HostId to, const Message&)> is_the_moment,
                        std::function<void()> act) {
  auto done = std::make_shared<bool>(false);
  cluster.world.on_delivery = [=, before = cluster.world.on_delivery](HostId from, HostId to,
                                                                      Message& message) {
    before(from, to, message);
    if (*done || !is_the_moment(from, to, message)) return;
    *done = true;
    act();
  };
}

inline bool is_chunk_of(const Message& message, WantKind kind) {
  return message.type == MessageType::kChunk && (*message.payload)[0] == std::byte(kind);
}

inline const Committed* commit_of(FakeTrainer& node, uint64_t round) {
  const auto found = std::ranges::find(node.commits(), round, &Committed::round);
  return found == node.commits().end() ? nullptr : &*found;
}
}  // namespace net
