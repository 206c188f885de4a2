// The link to the coordinator: looked for, greeted, watched, looked for again. It decides where to
// look, whom to follow of those that answer, and when to give up; what is said over the link is the
// member's business.
//
// All who may have become the coordinator are greeted side by side. So whoever of them can be it
// sees at once all that can reach it, and nobody has to be at the right place at the right time.
// The first that welcomes us is followed, and the other links are closed. Links are begun one after
// the other, as in RFC 8305: mostly the first ones answer before the last ones are dialled.
#pragma once

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
  };
  struct Place {
    Endpoint endpoint;
    uint64_t node_key = 0;  // Of whoever must answer there, on a secured link; 0: any.
    bool operator==(const Place&) const = default;
  };
  // `make_hello` makes the message that greets a coordinator at a place.
  Registration(Options options, std::function<Message(const Place&)> make_hello)
      : options_(std::move(options)), make_hello_(std::move(make_hello)) {}

  // Where to look beside the configured place, from the next search on.
  const std::vector<Place>& places() const { return places_; }
  void set_places(std::vector<Place> places) { places_ = std::move(places); }
  // Somebody says that it is there.
  void look_at(Place place, Instant now);
  // That is where the run begins.
  bool is_home(const Place& place) const { return place.endpoint == options_.coordinator; }

  void start(Turn turn);
  bool owns(LinkId link) const;
  // The link, while we are registered on it, and where it goes.
  std::optional<LinkId> link() const;
  const Endpoint& endpoint() const { return candidates_.front().place.endpoint; }

  void on_link_open(LinkId link, const NodeId& node, Turn turn);
  void on_welcome(LinkId link, const Welcome& welcome, Turn turn);
  void on_stand_by(LinkId link, const StandBy& stand_by, Turn turn);
  void on_heard(LinkId link, Instant now);

  // All that end a link return true if we were registered on it.
  bool on_link_closed(LinkId link, const std::string& reason, Instant now);
  bool drop(LinkId link, const std::string& reason, Turn turn);
  bool on_tick(Turn turn);

  bool is_heartbeat_due(Turn turn);
  bool is_given_up(Turn turn) const {
    return !is_welcome_ && turn.is_due(alone_since_ + options_.patience);
  }
  const std::string& last_reason() const { return last_reason_; }
  void close(Turn turn);

 private:
  struct Candidate {
    Place place;
    Instant dial_at{};  // While there is no link.
    Duration pause{};   // The last one.
    std::optional<LinkId> link;
    Instant heard_at{};        // Or since when we wait for an answer.
    uint64_t coordinator = 0;  // That stands by there; 0: not known.
  };

  bool is_right(const Place& place, const NodeId& node) const;
  void search(Instant now, std::optional<Place> lost);
  void add(Place place, Instant dial_at);
  Candidate& find(LinkId link);
  bool is_reached_elsewhere(const Candidate& candidate) const;
  void close(Candidate& candidate, Turn turn);

  const Options options_;
  const std::function<Message(const Place&)> make_hello_;
  std::vector<Place> places_;
  std::vector<Candidate> candidates_;  // One, while we are registered.
  bool is_welcome_ = false;
  Instant alone_since_{};
  Duration heartbeat_interval_{};
  Duration silence_max_{};
  Instant heartbeat_at_{};
  std::string last_reason_;
  std::optional<Instant> told_at_;  // That there is no coordinator.
};

}  // namespace net
