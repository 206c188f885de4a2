// Gets named chunks from peers: over a few links to each, a bounded number of bytes asked for,
// asked again whatever happens until they are there or nobody wants them any more.
//
// The one idea: a lane. Wants to one peer wait in lanes, by kind and, for rounds, by fragment;
// every lane has its own window. Results can be withheld for long (their owner waits for somebody
// else), and in a common window they would keep contributions from being asked for: two owners
// could wait for each other for ever.
//
// A want goes to the link of its peer that has the fewest bytes in flight. How many links there are
// is measured (net/exchange/path.h); a second one is dialled when the first one stands.
//
//   a link is lost                        its wants go to the others of its peer
//   the last one is lost, or all are      all wants of the peer go to another provider if there is
//   silent for long                       one; it is dialled again with growing pauses
//   Gone, or not what is needed yet       the next provider; after all of them, a pause
//   a bad chunk                           costs its sender all links
//   a provider has nothing left to do     what others have not been asked for yet of a state, or
//   owe
//                                         for 5 s, is asked of it
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "net/exchange/chunk.h"
#include "net/exchange/path.h"
#include "net/turn.h"

namespace net {

struct FetchLimits {
  int64_t wants_in_flight_max = 16;  // Of a lane, until the size of its chunks is known.
  int64_t links_per_peer_max = 16;
  int64_t window_bytes_max = 128 * 1024 * 1024;  // Of all lanes together.
};

class Fetcher {
 public:
  Fetcher(uint64_t run, const FetchLimits& limits) : run_(run), limits_(limits) {}

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
  // Whoever it leads to has the key of `node`, or has proved nothing.
  void on_link_open(LinkId link, const NodeId& node, Turn turn);
  // A link on which a peer that cannot be dialled will answer; false: it is not wanted. Whether
  // that is the peer of this number is seen when we know who is.
  bool adopt(LinkId link, const Offer& offer, const NodeId& node, Turn turn);
  void on_link_closed(LinkId link, const std::string& reason, Turn turn);

  // A wanted chunk has come; exactly one of taken, not_yet or bad must follow, at once or later,
  // if it is still wanted then. Until then it takes room in its lane's window: what comes quicker
  // than it can be looked at is not asked for.
  struct Delivery {
    ChunkName name;
    PeerId from = kNobody;
  };
  // Nothing if it was not a wanted chunk.
  std::optional<Delivery> on_message(LinkId link, const Message& message, Turn turn);
  void taken(const Delivery& delivery);
  void not_yet(const Delivery& delivery, Turn turn);
  void bad(const Delivery& delivery, const std::string& reason, Turn turn);

  // Past results and digests that all who may have them refused, since the last call. They stay
  // wanted.
  std::vector<ChunkName> take_nobody_has() { return std::exchange(nobody_has_, {}); }

  // Who owes us chunks of rounds, as bits, for a heartbeat; `silent` is since the last call.
  struct Debts {
    uint64_t contribution = 0;
    uint64_t result = 0;
    uint64_t silent = 0;
    uint64_t unreachable = 0;
  };
  Debts take_debts();
  // Of all peers of whose way something is known.
  Measured measured() const;
  // Chunks of rounds.
  int64_t delivered_count() const { return delivered_count_; }
  // Chunks that are wanted to catch up.
  int64_t lacking_count() const;

 private:
  struct Item {
    std::vector<Donor> providers;
    size_t turn = 0;  // Which of them is asked.
    size_t refusal_count = 0;
    int64_t moved_count = 0;    // From one that was slow to another.
    bool is_delivered = false;  // And not yet taken.
  };
  using LaneKey = std::pair<WantKind, uint32_t>;
  static LaneKey lane_key(const ChunkName& name) {
    return {name.kind, is_for_catching_up(name.kind) ? 0 : name.fragment};
  }
  struct Asked {
    LinkId link = 0;
    int64_t bytes = 0;  // That are expected.
  };
  struct Lane {
    std::set<ChunkName> pending;
    std::map<ChunkName, Asked> in_flight;
    std::map<ChunkName, Instant> paused;  // Until when.
    int64_t delivered_count = 0;          // Of chunks that were not taken yet.
    int64_t chunk_bytes = 0;              // Of the largest that came.
    bool is_empty() const { return pending.empty() && in_flight.empty() && paused.empty(); }
    int64_t wants_out() const { return int64_t(in_flight.size()) + delivered_count; }
  };
  struct Link {
    Endpoint endpoint;  // Where it leads; empty: the peer dialled us.
    NodeId node;        // Of the peer that dialled us, if it has proved it.
    Instant dialled_at{};
    bool is_open = false;
    bool has_answered = false;
    Instant heard_at{};  // Or since when it owes us something.
    int64_t want_count = 0;
    int64_t bytes_in_flight = 0;
  };
  struct Peer {
    explicit Peer(Path path) : path(std::move(path)) {}
    bool owes_contributions() const;
    bool is_known = false;  // And not only one who has offered a link.
    Endpoint endpoint;      // Empty: it cannot be dialled, and dials us.
    uint64_t node_key = 0;
    Path path;
    int64_t invited_count = 0;  // Links that it was asked for, and has not dialled yet.
    std::map<LinkId, Link> links;
    Instant dial_at{};
    Duration pause{};
    Instant heard_at{};           // Or since when it owes us something.
    bool has_sent = false;        // Since the last take_debts().
    bool is_unreachable = false;  // The last dial failed, and no link stands.
    std::map<LaneKey, Lane> lanes;
    bool is_idle() const;
    void start_anew();  // All but what is known about the path.
    bool has_in_flight() const;
    bool has_pending() const;
  };

  Peer& peer_of(LinkId link) { return peers_.at(peers_by_link_.at(link)); }
  void know(const Donor& provider);
  Lane& lane_of(const ChunkName& name);
  void enqueue(const ChunkName& name);
  void withdraw(const ChunkName& name);
  static bool take_from_flight(Peer& peer, Lane& lane, const ChunkName& name);
  void settle(const ChunkName& name);
  int64_t room(const Peer& peer, const Lane& lane) const;
  void pump_peer(PeerId id, Peer& peer, Turn turn);
  void share_out(WantKind kind, Turn turn);
  bool is_hungry(const Peer& peer, WantKind kind) const;
  std::optional<ChunkName> spare(WantKind kind, PeerId hungry, Turn turn) const;
  void ask(Peer& peer, Lane& lane, Turn turn);
  static LinkId least_loaded(const Peer& peer);
  void drop_silent(PeerId id, Peer& peer, Turn turn);
  void drop_strangers(Peer& peer, Turn turn);
  void adapt_links(PeerId id, Peer& peer, Turn turn);
  void drop_outlived(Peer& peer, const NodeId& node, Turn turn);
  void invite(Peer& peer, int64_t count, Turn turn);
  void dial(PeerId id, Peer& peer, Turn turn);
  void drop_link(LinkId link, Turn turn);
  void drop_links(Peer& peer, Turn turn);
  void forget_link(LinkId link, Turn turn);
  void on_last_link_lost(Peer& peer, Turn turn);
  void refused(const ChunkName& name, Turn turn);

  const uint64_t run_;
  const FetchLimits limits_;
  PeerId self_ = kNobody;
  std::map<ChunkName, Item> items_;
  std::map<PeerId, Peer> peers_;
  std::map<LinkId, PeerId> peers_by_link_;
  int64_t busy_lane_count_ = 0;  // Of all peers.
  int64_t delivered_count_ = 0;
  std::vector<ChunkName> nobody_has_;
};

}  // namespace net
