// The link to the coordinator: dialled, greeted, watched, dialled again. It decides where to look
// for one, when there is one to talk to, and when to give up; what is said over the link is the
// member's business.
//
// Whoever may have become the coordinator is dialled one after the other. All members do it in the
// same order, so that they meet.
#pragma once

#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "net/turn.h"

namespace net {

class Registration {
 public:
  struct Options {
    Endpoint coordinator;
    std::optional<NodeId> key;  // That it must have proved.
    Duration patience{};        // Without a coordinator.
    uint64_t node_key = 0;      // Pauses differ from node to node.
  };
  // `make_hello` makes the message that greets the coordinator.
  Registration(Options options, std::function<Message()> make_hello)
      : options_(std::move(options)), make_hello_(std::move(make_hello)) {}

  struct Place {
    Endpoint endpoint;
    uint64_t node_key = 0;  // Of whoever must answer there, on a secured link; 0: any.
    bool operator==(const Place&) const = default;
  };
  // Where to look beside the configured place, in this order.
  const std::vector<Place>& places() const { return places_; }
  void set_places(std::vector<Place> places) { places_ = std::move(places); }
  // Somebody says that it is there.
  void look_at(Place place);
  // Where the link goes.
  const Endpoint& endpoint() const { return place_.endpoint; }
  // Whether that is where the run begins.
  bool is_home() const { return place_.endpoint == options_.coordinator; }

  void start(Turn turn);
  bool owns(LinkId link) const { return link_ == link; }
  // The link, while we are registered on it.
  std::optional<LinkId> link() const { return is_welcome_ ? link_ : std::nullopt; }

  void on_link_open(const NodeId& node, Turn turn);
  void on_welcome(const Welcome& welcome, Turn turn);
  void on_heard(Instant now) { heard_at_ = now; }

  // All that end the link return true if we were registered on it.
  bool on_link_closed(const std::string& reason, Instant now);
  bool drop(const std::string& reason, Turn turn);
  bool on_tick(Turn turn);

  bool is_heartbeat_due(Instant now);
  bool is_given_up(Instant now) const {
    return !is_welcome_ && now - alone_since_ >= options_.patience;
  }
  const std::string& last_reason() const { return last_reason_; }
  void close(Turn turn);

 private:
  bool is_right(const NodeId& node) const;
  void begin_turn(Instant now);
  void look_everywhere();

  const Options options_;
  const std::function<Message()> make_hello_;
  std::vector<Place> places_;
  std::deque<Place> next_;  // To be dialled in this turn, without a pause.
  int64_t redirect_count_ = 0;
  uint64_t turn_count_ = 0;
  Place place_;
  std::optional<LinkId> link_;
  bool is_open_ = false;
  bool is_welcome_ = false;
  Instant heard_at_{};  // Or since when we wait for an answer.
  Instant alone_since_{};
  Instant dial_at_{};
  Duration pause_{};
  Duration heartbeat_interval_{};
  Duration silence_max_{};
  Instant heartbeat_at_{};
  std::string last_reason_;
  std::optional<Instant> told_at_;  // That there is no coordinator.
};

}  // namespace net
