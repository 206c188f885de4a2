// Gets named chunks from peers: one link to each, a bounded number of wants in flight, asked again
// whatever happens until they are there or nobody wants them any more.
//
// The one idea: a lane. Wants to one peer wait in lanes, by kind and, for rounds, by fragment;
// every lane has its own window. Results can be withheld for long (their owner waits for somebody
// else), and in a common window they would keep contributions from being asked for: two owners
// could wait for each other for ever.
//
//   a link is lost, or silent for long    its wants go to another provider if there is one; the
//   link is
//                                         dialled again with growing pauses
//   Gone, or not what is needed yet       the next provider; after all of them, a pause
//   a bad chunk                           costs its sender the link
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "net/exchange/chunk.h"
#include "net/turn.h"

namespace net {

class Fetcher {
 public:
  Fetcher(uint64_t run, int64_t in_flight_max) : run_(run), in_flight_max_(in_flight_max) {}

  void set_self(PeerId self) { self_ = self; }

  // REQUIRES: there is a provider. Wanting it again only replaces the providers.
  void want(const ChunkName& name, std::vector<Donor> providers);
  void forget_if(const std::function<bool(const ChunkName&)>& is_unwanted);
  bool wants(const ChunkName& name) const { return items_.contains(name); }

  // Asks for what may be asked for now, and does what time demands. To be called after every change
  // and at every tick.
  void pump(Turn turn);
  void close_links(Turn turn);

  bool owns(LinkId link) const { return peers_by_link_.contains(link); }
  void on_link_open(LinkId link);
  void on_link_closed(LinkId link, const std::string& reason, Turn turn);

  // A wanted chunk has come; exactly one of taken, not_yet or bad must follow.
  struct Delivery {
    ChunkName name;
    PeerId from = kNobody;
  };
  // Nothing if it was not a wanted chunk.
  std::optional<Delivery> on_message(LinkId link, const Message& message, Turn turn);
  void taken(const Delivery& delivery);
  void not_yet(const Delivery& delivery, Turn turn);
  void bad(const Delivery& delivery, const std::string& reason, Turn turn);

  // Who owes us chunks of rounds, as bits, for a heartbeat; `silent` is since the last call.
  struct Debts {
    uint64_t contribution = 0;
    uint64_t result = 0;
    uint64_t silent = 0;
    uint64_t unreachable = 0;
  };
  Debts take_debts();
  // Chunks of rounds.
  int64_t delivered_count() const { return delivered_count_; }

 private:
  struct Item {
    std::vector<Donor> providers;
    size_t turn = 0;  // Which of them is asked.
    size_t refusal_count = 0;
  };
  using LaneKey = std::pair<WantKind, uint32_t>;
  struct Lane {
    std::set<ChunkName> pending;
    std::set<ChunkName> in_flight;
    std::map<ChunkName, Instant> paused;  // Until when.
    bool is_empty() const { return pending.empty() && in_flight.empty() && paused.empty(); }
  };
  struct Peer {
    Endpoint endpoint;
    Endpoint dialled;  // Where `link` leads: a number can be given to another node.
    std::optional<LinkId> link;
    Instant dial_at{};
    Duration pause{};
    Instant heard_at{};     // Or since when it owes us something.
    bool has_sent = false;  // Since the last take_debts().
    bool is_dialling = false;
    bool is_unreachable = false;  // The last dial failed.
    std::map<LaneKey, Lane> lanes;
  };

  Lane& lane_of(const ChunkName& name);
  void enqueue(const ChunkName& name);
  void withdraw(const ChunkName& name);
  void pump_peer(PeerId id, Peer& peer, Turn turn);
  void dial(PeerId id, Peer& peer, Turn turn);
  void drop_link(Peer& peer, Turn turn);
  void refused(const ChunkName& name, Turn turn);

  const uint64_t run_;
  const int64_t in_flight_max_;
  PeerId self_ = kNobody;
  std::map<ChunkName, Item> items_;
  std::map<PeerId, Peer> peers_;
  std::map<LinkId, PeerId> peers_by_link_;
  int64_t delivered_count_ = 0;
};

}  // namespace net
