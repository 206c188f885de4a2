#include "net/member/registration.h"

#include <algorithm>

#include "base/log.h"
#include "net/probe.h"

namespace net {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration kPauseMin = milliseconds(200);
constexpr Duration kPauseMax = seconds(5);
// For the connection, and then for the Welcome.
constexpr Duration kAnswerWithin = seconds(10);
// Between two lines in the log that say that there is none.
constexpr Duration kTellAgainAfter = seconds(30);

}  // namespace

void Registration::start(Turn turn) {
  alone_since_ = turn.now;
  on_tick(turn);
}

void Registration::on_link_open(const NodeId& node, Turn turn) {
  if (options_.key && node != *options_.key) {
    drop(fmt::format("the node with the key {} answers there", node.text()), turn);
    return;
  }
  heard_at_ = turn.now;
  turn.out.send(*link_, make_hello_());
}

void Registration::on_welcome(const Welcome& welcome, Turn turn) {
  is_welcome_ = true;
  if (told_at_) base::log_info("found the coordinator {}", options_.coordinator.text());
  told_at_.reset();
  heard_at_ = turn.now;
  heartbeat_interval_ = milliseconds(welcome.heartbeat_interval_ms);
  silence_max_ = milliseconds(welcome.dead_after_ms);
  heartbeat_at_ = turn.now;
  pause_ = {};
}

bool Registration::on_link_closed(const std::string& reason, Instant now) {
  const bool was_registered = is_welcome_;
  if (was_registered) {
    base::log_warning("lost the coordinator {}: {}", options_.coordinator.text(), reason);
    alone_since_ = now;
  } else if (!told_at_ || now - *told_at_ >= kTellAgainAfter) {
    told_at_ = now;
    base::log_warning("waiting for the coordinator {}: {}", options_.coordinator.text(), reason);
  }
  last_reason_ = reason;
  link_.reset();
  is_welcome_ = false;
  pause_ = std::clamp<Duration>(2 * pause_, kPauseMin, kPauseMax);
  dial_at_ = now + pause_;
  return was_registered;
}

bool Registration::drop(const std::string& reason, Turn turn) {
  turn.out.close(*link_);
  return on_link_closed(reason, turn.now);
}

bool Registration::on_tick(Turn turn) {
  if (link_) {
    const Duration patience = is_welcome_ ? silence_max_ : kAnswerWithin;
    if (turn.now - heard_at_ < patience) return false;
    probe<"a Hello is not answered">(!is_welcome_);
    probe<"the coordinator is silent">(is_welcome_);
    return drop(fmt::format("silent for {} s", std::chrono::duration<double>(patience).count()),
                turn);
  }
  if (turn.now >= dial_at_) {
    link_ = turn.out.connect(options_.coordinator);
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
  is_welcome_ = false;
}

}  // namespace net
