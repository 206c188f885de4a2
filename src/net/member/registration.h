// The link to the coordinator: dialled, greeted, watched, dialled again. It decides when there is a
// coordinator to talk to and when to give up; what is said over the link is the member's business.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "net/turn.h"

namespace net {

class Registration {
 public:
  struct Options {
    Endpoint coordinator;
    std::optional<NodeId> key;  // That it must have proved.
    Duration patience{};        // Without a coordinator.
  };
  // `make_hello` makes the message that greets the coordinator.
  Registration(Options options, std::function<Message()> make_hello)
      : options_(std::move(options)), make_hello_(std::move(make_hello)) {}

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
  const Options options_;
  const std::function<Message()> make_hello_;
  std::optional<LinkId> link_;
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
