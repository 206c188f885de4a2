#include "net/member/registration.h"

#include <algorithm>

#include "base/hash.h"
#include "base/log.h"
#include "net/probe.h"

namespace net {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration kPauseMin = milliseconds(200);
constexpr Duration kPauseMax = seconds(5);
// Where there are several places, and the next turn may well find what this one has not.
constexpr Duration kTurnPauseMax = seconds(2);
// For the connection, where there is another place to look at, and for the Welcome.
constexpr Duration kConnectWithin = seconds(2);
constexpr Duration kAnswerWithin = seconds(10);
// At first all look in step, so that they meet.
constexpr uint64_t kTurnsInStep = 2;
// In one turn.
constexpr int64_t kRedirectsMax = 3;
// Between two lines in the log that say that there is none.
constexpr Duration kTellAgainAfter = seconds(30);

}  // namespace

void Registration::start(Turn turn) {
  alone_since_ = turn.now;
  look_everywhere();
  on_tick(turn);
}

void Registration::on_link_open(const NodeId& node, Turn turn) {
  if (!is_right(node)) {
    drop(fmt::format("the node with the key {} answers there", node.text()), turn);
    return;
  }
  is_open_ = true;
  heard_at_ = turn.now;
  turn.out.send(*link_, make_hello_());
}

// With a list of keys: the configured coordinator, or the node that another one has named.
bool Registration::is_right(const NodeId& node) const {
  return !options_.key || node == *options_.key ||
         (place_.node_key != 0 && place_.node_key == node.number());
}

void Registration::on_welcome(const Welcome& welcome, Turn turn) {
  is_welcome_ = true;
  if (told_at_) base::log_info("found the coordinator {}", place_.endpoint.text());
  told_at_.reset();
  heard_at_ = turn.now;
  heartbeat_interval_ = milliseconds(welcome.heartbeat_interval_ms);
  silence_max_ = milliseconds(welcome.dead_after_ms);
  heartbeat_at_ = turn.now;
  pause_ = {};
  turn_count_ = 0;
  next_.clear();
}

bool Registration::on_link_closed(const std::string& reason, Instant now) {
  const bool was_registered = is_welcome_;
  if (was_registered) {
    base::log_warning("lost the coordinator {}: {}", place_.endpoint.text(), reason);
    alone_since_ = now;
  } else if (!told_at_ || now - *told_at_ >= kTellAgainAfter) {
    told_at_ = now;
    base::log_warning("waiting for the coordinator {}: {}", place_.endpoint.text(), reason);
  }
  last_reason_ = reason;
  link_.reset();
  is_open_ = is_welcome_ = false;
  dial_at_ = now;
  if (was_registered) {  // It may only have been the link.
    begin_turn(now);
    next_.push_front(place_);
  } else if (next_.empty()) {
    begin_turn(now);
  }
  return was_registered;
}

void Registration::begin_turn(Instant now) {
  pause_ = std::clamp<Duration>(2 * pause_, kPauseMin, places_.empty() ? kPauseMax : kTurnPauseMax);
  // Two that went to each other at the same time, and found nobody at home, must not do so for
  // ever.
  const bool is_late = !places_.empty() && ++turn_count_ > kTurnsInStep;
  const double jitter =
      is_late ? 0.5 + base::Random(options_.node_key, turn_count_).uniform() : 1.0;
  dial_at_ = now + Duration(int64_t(jitter * double(pause_.count())));
  look_everywhere();
}

void Registration::look_everywhere() {
  redirect_count_ = 0;
  next_.assign(places_.begin(), places_.end());
  const auto is_home = [&](const Place& place) { return place.endpoint == options_.coordinator; };
  if (std::ranges::none_of(places_, is_home)) next_.push_back({.endpoint = options_.coordinator});
}

// Two that have lost it may each take the other to know more.
void Registration::look_at(Place place) {
  probe<"a member is sent on again and again">(redirect_count_ == kRedirectsMax);
  if (redirect_count_++ < kRedirectsMax) next_.push_front(std::move(place));
}

bool Registration::drop(const std::string& reason, Turn turn) {
  turn.out.close(*link_);
  return on_link_closed(reason, turn.now);
}

bool Registration::on_tick(Turn turn) {
  if (link_) {
    const bool must_hurry = !is_open_ && !places_.empty();
    const Duration patience = is_welcome_  ? silence_max_
                              : must_hurry ? kConnectWithin
                                           : kAnswerWithin;
    if (turn.now - heard_at_ < patience) return false;
    probe<"a Hello is not answered">(!is_welcome_);
    probe<"the coordinator is silent">(is_welcome_);
    return drop(fmt::format("silent for {} s", std::chrono::duration<double>(patience).count()),
                turn);
  }
  if (turn.now >= dial_at_) {
    place_ = std::move(next_.front());
    next_.pop_front();
    link_ = turn.out.connect(place_.endpoint);
    heard_at_ = turn.now;
  }
  return false;
}

bool Registration::is_heartbeat_due(Instant now) {
  if (!is_welcome_ || now < heartbeat_at_) return false;
  heartbeat_at_ = now + heartbeat_interval_;
  return true;
}

void Registration::close(Turn turn) {
  if (link_) turn.out.close(*link_);
  link_.reset();
  is_open_ = is_welcome_ = false;
}

}  // namespace net
