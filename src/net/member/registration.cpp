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
// Where there are several places, and any may have become the right one.
constexpr Duration kPauseAmongManyMax = seconds(2);
// From one place to the next in a search.
constexpr Duration kStagger = milliseconds(50);
// For the connection, and for the next word before the Welcome.
constexpr Duration kAnswerWithin = seconds(10);
// Of a list, and as many of which others tell us.
constexpr int64_t kCandidatesMax = 2 * kMembersMax;
// Between two lines in the log that say that there is none.
constexpr Duration kTellAgainAfter = seconds(30);

}  // namespace

void Registration::start(Turn turn) {
  alone_since_ = turn.now;
  search(turn.now, std::nullopt);
  on_tick(turn);
}

void Registration::search(Instant now, std::optional<Place> lost) {
  candidates_.clear();
  Instant dial_at = now;
  const auto add_next = [&](const Place& place) {
    add(place, dial_at);
    dial_at = now + int64_t(candidates_.size()) * kStagger;
  };
  if (lost) {  // It may only have been the link.
    dial_at = now += kPauseMin;
    add_next(*lost);
    candidates_.front().pause = kPauseMin;
  }
  add_next({.endpoint = options_.coordinator});
  for (const Place& place : places_) add_next(place);
}

void Registration::add(Place place, Instant dial_at) {
  if (int64_t(candidates_.size()) >= kCandidatesMax) return;
  for (Candidate& known : candidates_) {
    if (known.place.endpoint != place.endpoint) continue;
    if (known.place.node_key == 0) known.place.node_key = place.node_key;
    return;
  }
  candidates_.push_back({.place = std::move(place), .dial_at = dial_at, .link = {}});
}

void Registration::look_at(Place place, Instant now) {
  if (is_welcome_) {
    places_.insert(places_.begin(), std::move(place));
  } else {
    add(std::move(place), now);
  }
}

bool Registration::owns(LinkId link) const {
  return std::ranges::any_of(candidates_, [&](const auto& one) { return one.link == link; });
}

Registration::Candidate& Registration::find(LinkId link) {
  return *std::ranges::find(candidates_, std::optional(link), &Candidate::link);
}

std::optional<LinkId> Registration::link() const {
  return is_welcome_ ? candidates_.front().link : std::nullopt;
}

void Registration::on_link_open(LinkId link, const NodeId& node, Turn turn) {
  Candidate& candidate = find(link);
  if (!is_right(candidate.place, node)) {
    drop(link, fmt::format("the node with the key {} answers there", node.text()), turn);
    return;
  }
  candidate.heard_at = turn.now;
  turn.out.send(link, make_hello_(candidate.place));
}

// With a list of keys: the configured coordinator, or the node that another one has named.
bool Registration::is_right(const Place& place, const NodeId& node) const {
  return !options_.key || node == *options_.key ||
         (place.node_key != 0 && place.node_key == node.number());
}

void Registration::on_welcome(LinkId link, const Welcome& welcome, Turn turn) {
  for (Candidate& other : candidates_) {
    if (other.link != link) close(other, turn);
  }
  Candidate followed = find(link);
  followed.heard_at = turn.now;
  candidates_.assign(1, std::move(followed));
  is_welcome_ = true;
  if (told_at_) base::log_info("found the coordinator {}", endpoint().text());
  told_at_.reset();
  heartbeat_interval_ = milliseconds(welcome.heartbeat_interval_ms);
  silence_max_ = milliseconds(welcome.dead_after_ms);
  heartbeat_at_ = turn.now;
}

// A node that is reached by the configured address is not dialled by its own beside that. And where
// another one answers than the one that we look for (it may even be ourselves, after a port map was
// changed), a link that stands would keep us from looking again.
void Registration::on_stand_by(LinkId link, const StandBy& stand_by, Turn turn) {
  Candidate& there = find(link);
  there.coordinator = stand_by.coordinator;
  const uint64_t expected = is_home(there.place) ? 0 : there.place.node_key;
  if (expected != 0 && expected != stand_by.coordinator) {
    probe<"another node stands by where one is looked for">();
    drop(link, "another node answers there", turn);
    return;
  }
  for (Candidate& candidate : candidates_) {
    if (!candidate.link || !is_reached_elsewhere(candidate)) continue;
    probe<"a node is reached by two addresses">();
    close(candidate, turn);
  }
}

bool Registration::is_reached_elsewhere(const Candidate& candidate) const {
  if (candidate.place.node_key == 0) return false;
  return std::ranges::any_of(candidates_, [&](const Candidate& other) {
    return &other != &candidate && other.link && other.coordinator == candidate.place.node_key;
  });
}

void Registration::on_heard(LinkId link, Instant now) {
  find(link).heard_at = now;
}

bool Registration::on_link_closed(LinkId link, const std::string& reason, Instant now) {
  Candidate& candidate = find(link);
  const bool was_registered = is_welcome_;
  if (was_registered) {
    base::log_warning("lost the coordinator {}: {}", endpoint().text(), reason);
    alone_since_ = now;
  } else if (!told_at_ || now - *told_at_ >= kTellAgainAfter) {
    told_at_ = now;
    base::log_warning("waiting for the coordinator {}: {}", candidate.place.endpoint.text(),
                      reason);
  }
  last_reason_ = reason;
  is_welcome_ = false;
  if (was_registered) {
    search(now, candidate.place);
    return true;
  }
  const Duration pause_max = places_.empty() ? kPauseMax : kPauseAmongManyMax;
  const Duration pause = std::clamp<Duration>(2 * candidate.pause, kPauseMin, pause_max);
  candidate = {.place = candidate.place, .dial_at = now + pause, .pause = pause, .link = {}};
  return false;
}

bool Registration::drop(LinkId link, const std::string& reason, Turn turn) {
  turn.out.close(link);
  return on_link_closed(link, reason, turn.now);
}

bool Registration::on_tick(Turn turn) {
  for (Candidate& candidate : candidates_) {
    if (!candidate.link) {
      if (is_reached_elsewhere(candidate) || !turn.is_due(candidate.dial_at)) continue;
      candidate.link = turn.out.connect(candidate.place.endpoint);
      candidate.heard_at = turn.now;
      continue;
    }
    const Duration patience = is_welcome_ ? silence_max_ : kAnswerWithin;
    if (!turn.is_due(candidate.heard_at + patience)) continue;
    probe<"a Hello is not answered">(!is_welcome_);
    probe<"the coordinator is silent">(is_welcome_);
    const double silence = std::chrono::duration<double>(patience).count();
    if (drop(*candidate.link, fmt::format("silent for {} s", silence), turn)) return true;
  }
  return false;
}

bool Registration::is_heartbeat_due(Turn turn) {
  if (!is_welcome_ || !turn.is_due(heartbeat_at_)) return false;
  heartbeat_at_ = turn.now + heartbeat_interval_;
  return true;
}

void Registration::close(Candidate& candidate, Turn turn) {
  if (candidate.link) turn.out.close(*candidate.link);
  candidate.link.reset();
  candidate.coordinator = 0;
}

void Registration::close(Turn turn) {
  for (Candidate& candidate : candidates_) close(candidate, turn);
  is_welcome_ = false;
}

}  // namespace net
