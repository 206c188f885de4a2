// Whether members can be dialled where they say: the coordinator tries it before anybody else is
// told the address, and again when somebody reports that it cannot.
//
// The port must answer with a proof that only the member's own node can give, so that a wrong
// address which leads to another node is noticed, and nobody is made to dial a third party. One
// address is dialled by one link at a time, and after a failure only with growing pauses, whoever
// names it.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>

#include "net/turn.h"

namespace net {

class Reachability {
 public:
  explicit Reachability(uint64_t run) : run_(run) {}

  struct Finding {
    bool is_reachable = false;
    std::string reason;  // If it is not.
  };

  // A new member. Nothing is known of it until the first try is over.
  void watch(PeerId peer, uint64_t node_key, const Endpoint& endpoint, Turn turn);
  // The coordinator's own node: it answers itself, so it is not dialled, and what others found
  // counts.
  void take_word(PeerId peer, uint64_t node_key, const Endpoint& endpoint, bool is_reachable);
  // Until the first try is over: a port that swallows what it is sent answers nobody for long.
  void presume_unreachable(PeerId peer);
  void forget(PeerId peer, Turn turn);
  std::optional<Finding> finding(PeerId peer) const;
  // Somebody could not reach it: tries again soon.
  void doubt(PeerId peer, Instant now);

  bool owns(LinkId link) const { return peers_by_link_.contains(link); }
  void on_link_open(LinkId link, const NodeId& node, Turn turn);
  void on_link_closed(LinkId link, const std::string& reason, Turn turn);
  void on_message(LinkId link, const Message& message, Turn turn);
  void on_tick(Turn turn);

 private:
  struct Watched {
    uint64_t node_key = 0;
    Endpoint endpoint;
    std::optional<Finding> finding;
    std::optional<LinkId> link;
    uint64_t nonce = 0;
    Instant dialled_at{};
    std::optional<Instant> due_at;
  };
  struct Failed {  // Of an address.
    Instant at{};
    Duration pause{};
    std::string reason;
  };

  void dial(PeerId peer, Watched& watched, Turn turn);
  void conclude(PeerId peer, Finding finding, Turn turn);

  const uint64_t run_;
  std::map<PeerId, Watched> watched_;
  std::map<LinkId, PeerId> peers_by_link_;
  std::map<std::string, Failed> failed_;  // By address.
  uint64_t last_nonce_ = 0;
};

}  // namespace net
