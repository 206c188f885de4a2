// Answers what other members want. It keeps a want until it can be answered, and asks for the
// answer only when the link has room for it: so chunks are made when they can leave, and memory is
// bounded by the links' queues.
//
// Rounds come first: what somebody wants to catch up waits for a gap (net/exchange/gaps.h), results
// before blocks, because only they can come too late.
//
// A want may come before we know its round, or before a result is there: it waits here. After
// kWantAgeMax the other side is told Gone and decides what to do; it usually asks again.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "net/exchange/chunk.h"
#include "net/exchange/gaps.h"
#include "net/turn.h"

namespace net {

class Server {
 public:
  using Answerer = std::function<Answer(const ChunkName&)>;

  // `node_key` is what it proves to have when the coordinator dials back.
  // For `gap_share` see Gaps.
  Server(uint64_t run, uint64_t node_key, double gap_share, Answerer answerer)
      : run_(run), node_key_(node_key), answerer_(std::move(answerer)), gaps_(gap_share) {}

  void set_self(PeerId self) { self_ = self; }
  bool owns(LinkId link) const { return links_.contains(link); }

  // An incoming link. It must say DataHello first.
  void on_link_open(LinkId link, const Remote& remote, Instant now) {
    links_[link] = {
        .host = remote.endpoint.host, .node = remote.node, .heard_at = now, .took_at = now};
  }
  // A link that we dialled so that `peer` can ask here (net/exchange/outreach.h). It stays.
  void on_link_offered(LinkId link, PeerId peer, Instant now) {
    links_[link] = {.heard_at = now, .greeted_by = peer, .is_offered = true, .took_at = now};
  }
  // It is not ours to answer on: the other side offers to answer. Returns whose key it has proved.
  NodeId release(LinkId link) {
    const NodeId node = links_.at(link).node;
    on_link_closed(link);
    return node;
  }
  void on_link_closed(LinkId link);
  // Closes links that send anything else than DataHello and Want, or DialBack.
  void on_message(LinkId link, const Message& message, Turn turn);
  void on_drained(LinkId link, Turn turn) {
    pump_link(link, turn);
    fill_gaps(turn);
  }

  // Tries all wants again: to be called when answers may have changed.
  void pump(Turn turn);
  // The same, and closes links that have been idle for long: they are dialled again when needed.
  void on_tick(Turn turn);
  void close_links(Turn turn);

 private:
  struct Want {
    ChunkName name;
    uint64_t epoch = 0;
    Instant asked_at{};
  };
  struct Link {
    std::string host;  // The other side's.
    NodeId node;
    Instant heard_at{};
    std::optional<PeerId> greeted_by;
    bool is_offered = false;
    std::deque<Want> wants;
    std::deque<Want> wants_to_catch_up;
    bool is_for_rounds = true;  // What is queued.
    int64_t queued_bytes = 0;   // The last time we looked.
    int64_t taken_bytes = 0;    // Of them, since took_at.
    Instant took_at{};          // Its queue was empty, or it had taken enough of it.
  };

  base::Result<void> take(LinkId id, Link& link, const Message& message, Turn turn);
  bool has_another(LinkId id, const Link& link) const;
  bool is_crowded(const std::string& host) const;
  // What is queued for links that hardly read shall not keep others from theirs.
  void make_room(Turn turn);
  static void watch_queue(LinkId id, Link& link, Turn turn);
  void pump_link(LinkId id, Turn turn);
  void watch_gaps(Turn turn);
  void fill_gaps(Turn turn);
  bool serve_next(WantKind kind, Turn turn);
  bool serve_one(LinkId id, WantKind kind, Turn turn);
  void send(LinkId id, const Want& want, const Answer& answer, Turn turn);

  const uint64_t run_;
  const uint64_t node_key_;
  const Answerer answerer_;
  Gaps gaps_;
  PeerId self_ = kNobody;
  std::map<LinkId, Link> links_;
  int64_t want_count_ = 0;  // Of all links.
  LinkId last_served_ = 0;  // With something to catch up.
};

}  // namespace net
