#include "net/exchange/server.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/log.h"
#include "net/probe.h"

namespace net {
namespace {

constexpr Duration kWantAgeMax = std::chrono::seconds(30);
// Per link. A member asks for a few dozen per fragment (MemberOptions::wants_in_flight_max).
constexpr int64_t kWantsMax = 4096;
// Of all links together.
constexpr int64_t kAllWantsMax = 64 * 1024;
// Of all links together: a link gets no more of what it wants while others hold so much that they
// do not read. One that reads nothing is ended by the host.
constexpr int64_t kAllQueuedBytesMax = 128 * 1024 * 1024;
// From half of that on they give way: who takes less than so much in a second, longest ago first.
// Otherwise 32 of them would be enough to keep us from serving anybody.
constexpr int64_t kTakenBytesMin = 64 * 1024;
constexpr Duration kTakesWithin = std::chrono::seconds(1);
constexpr Duration kStuckAfter = std::chrono::seconds(10);
constexpr Duration kIdleMax = std::chrono::seconds(120);
// With more incoming links than that, from one address and of all, nobody gets a second one: the
// other half of the host's limits is for those who have none.
constexpr int64_t kAddressLinksMax = 128;
constexpr int64_t kAllLinksMax = 512;

}  // namespace

void Server::on_message(LinkId id, const Message& message, Turn turn) {
  const auto taken = take(id, links_.at(id), message, turn);
  if (taken.ok()) {
    pump_link(id, turn);
    fill_gaps(turn);
    return;
  }
  base::log_warning("closed an incoming link: {}", taken.reason());
  turn.out.close(id);
  on_link_closed(id);
}

void Server::on_link_closed(LinkId id) {
  const Link& link = links_.at(id);
  want_count_ -= int64_t(link.wants.size() + link.wants_to_catch_up.size());
  links_.erase(id);
}

base::Result<void> Server::take(LinkId id, Link& link, const Message& message, Turn turn) {
  link.heard_at = turn.now;
  if (message.run != run_) return base::Failure{"it belongs to another run"};
  if (message.type == MessageType::kDialBack) {
    const auto dial_back = decode<DialBack>(*message.payload);
    if (!dial_back.ok()) return base::Failure{dial_back.reason()};
    turn.out.send(id,
                  {.type = MessageType::kDialBackReply,
                   .run = run_,
                   .source = self_,
                   .authority = {},
                   .payload = encode(DialBackReply{dial_back_proof(node_key_, dial_back->nonce)})});
    return {};
  }
  if (message.type == MessageType::kDataHello) {
    const auto hello = decode<DataHello>(*message.payload);
    if (!hello.ok()) return base::Failure{hello.reason()};
    link.greeted_by = hello->peer;
    if (has_another(id, link) && is_crowded(link.host)) {
      return base::Failure{fmt::format("no room for one more of peer {}", hello->peer)};
    }
    return {};
  }
  if (message.type != MessageType::kWant || !link.greeted_by) {
    return base::Failure{fmt::format("message {} was not expected", int(message.type))};
  }
  const auto want = decode<net::Want>(*message.payload);
  if (!want.ok()) return base::Failure{want.reason()};
  auto& wants = is_for_catching_up(want->kind) ? link.wants_to_catch_up : link.wants;
  if (int64_t(wants.size()) >= kWantsMax || want_count_ >= kAllWantsMax)
    return base::Failure{"it wants too much at once"};
  ++want_count_;
  wants.push_back({.name = chunk_name(want->kind, message.authority),
                   .epoch = message.authority.epoch,
                   .asked_at = turn.now});
  return {};
}

// From the same address: what others say that they are costs nobody his first link.
bool Server::has_another(LinkId id, const Link& link) const {
  return std::ranges::any_of(links_, [&](const auto& entry) {
    const Link& other = entry.second;
    return entry.first != id && other.greeted_by == link.greeted_by && other.host == link.host;
  });
}

bool Server::is_crowded(const std::string& host) const {
  const auto is_neighbour = [&](const auto& entry) { return entry.second.host == host; };
  return int64_t(links_.size()) > kAllLinksMax ||
         std::ranges::count_if(links_, is_neighbour) > kAddressLinksMax;
}

void Server::pump(Turn turn) {
  for (const auto& [id, link] : links_) pump_link(id, turn);
  fill_gaps(turn);
}

void Server::on_tick(Turn turn) {
  make_room(turn);
  pump(turn);
  std::vector<LinkId> idle;
  for (const auto& [id, link] : links_) {
    const bool has_work =
        !link.wants.empty() || !link.wants_to_catch_up.empty() || turn.out.queued_bytes(id) > 0;
    if (has_work) turn.look_again();  // The queue and the gaps change with time alone.
    const bool is_idle = !has_work && !link.is_offered && turn.is_due(link.heard_at + kIdleMax);
    probe<"an incoming link is idle for long">(is_idle);
    if (is_idle) idle.push_back(id);
  }
  for (const LinkId id : idle) {
    turn.out.close(id);
    on_link_closed(id);
  }
}

void Server::make_room(Turn turn) {
  std::vector<std::pair<Instant, LinkId>> slow;
  for (auto& [id, link] : links_) {
    watch_queue(id, link, turn);
    if (turn.now - link.took_at >= kTakesWithin) slow.emplace_back(link.took_at, id);
  }
  std::ranges::sort(slow);
  int64_t queued = turn.out.all_queued_bytes();
  size_t closed_count = 0;
  for (; queued > kAllQueuedBytesMax / 2 && closed_count < slow.size(); ++closed_count) {
    const LinkId id = slow[closed_count].second;
    queued -= turn.out.queued_bytes(id);
    turn.out.close(id);
    on_link_closed(id);
  }
  if (closed_count == 0) return;
  base::log_warning("closed {} incoming links that take too little of what they want",
                    closed_count);
}

void Server::watch_queue(LinkId id, Link& link, Turn turn) {
  const int64_t queued = turn.out.queued_bytes(id);
  link.taken_bytes += std::max<int64_t>(link.queued_bytes - queued, 0);
  link.queued_bytes = queued;
  if (queued > 0 && link.taken_bytes < kTakenBytesMin) return;
  link.took_at = turn.now;
  link.taken_bytes = 0;
}

void Server::close_links(Turn turn) {
  for (const auto& [id, link] : links_) turn.out.close(id);
  links_.clear();
  want_count_ = 0;
}

void Server::pump_link(LinkId id, Turn turn) {
  Link& link = links_.at(id);
  watch_queue(id, link, turn);
  const auto find_room = [&] {
    return turn.out.queued_bytes(id) <= kQueuedBytesMax &&
           turn.out.all_queued_bytes() <= kAllQueuedBytesMax;
  };
  if (!find_room()) return;
  std::deque<Want> kept;
  for (const Want& want : link.wants) {
    const bool has_room = find_room();
    Answer answer = has_room ? answerer_(want.name) : not_yet();
    const bool is_old = has_room && turn.now - want.asked_at >= kWantAgeMax;
    probe<"a want has waited for too long">(answer.kind == Answer::Kind::kNotYet && is_old);
    if (answer.kind == Answer::Kind::kNotYet && is_old) answer = gone();
    if (answer.kind == Answer::Kind::kNotYet) {
      kept.push_back(want);
    } else {
      link.is_for_rounds = true;
      send(id, want, answer, turn);
    }
  }
  want_count_ -= int64_t(link.wants.size() - kept.size());
  link.wants = std::move(kept);
  link.queued_bytes = turn.out.queued_bytes(id);
}

// Links that take next to nothing hold nobody up, and get nothing more.
void Server::watch_gaps(Turn turn) {
  int64_t round_bytes = 0, other_bytes = 0;
  for (const auto& [id, link] : links_) {
    if (turn.now - link.took_at >= kStuckAfter) continue;
    (link.is_for_rounds ? round_bytes : other_bytes) += turn.out.queued_bytes(id);
  }
  gaps_.watch(round_bytes, other_bytes, turn.now);
}

void Server::fill_gaps(Turn turn) {
  const bool is_wanted = std::ranges::any_of(
      links_, [](const auto& entry) { return !entry.second.wants_to_catch_up.empty(); });
  if (!is_wanted) return;
  gaps_.on_wanted(turn.now);
  watch_gaps(turn);
  for (const WantKind kind : {WantKind::kDigests, WantKind::kPast, WantKind::kState}) {
    while (serve_next(kind, turn)) continue;
  }
}

// One chunk, on the link whose turn it is. False: there is no gap, or nothing to put into it.
bool Server::serve_next(WantKind kind, Turn turn) {
  auto found = links_.upper_bound(last_served_);
  for (size_t i = 0; i < links_.size() && gaps_.is_open(turn.now); ++i, ++found) {
    if (found == links_.end()) found = links_.begin();
    const auto& [id, link] = *found;
    const int64_t queued = turn.out.queued_bytes(id);
    const bool is_stuck = queued > 0 && turn.now - link.took_at >= kStuckAfter;
    const bool has_room =
        queued <= kQueuedBytesMax / 2 && turn.out.all_queued_bytes() <= kAllQueuedBytesMax;
    if (is_stuck || !has_room || !serve_one(id, kind, turn)) continue;
    last_served_ = id;
    gaps_.on_sent(turn.now);
    watch_gaps(turn);
    return true;
  }
  return false;
}

// What we do not have is said on the way.
bool Server::serve_one(LinkId id, WantKind kind, Turn turn) {
  Link& link = links_.at(id);
  auto& wants = link.wants_to_catch_up;
  for (auto want = wants.begin(); want != wants.end();) {
    Answer answer = want->name.kind == kind ? answerer_(want->name) : not_yet();
    const bool is_old = want->name.kind == kind && turn.now - want->asked_at >= kWantAgeMax;
    if (answer.kind == Answer::Kind::kNotYet && is_old) answer = gone();
    if (answer.kind == Answer::Kind::kNotYet) {
      ++want;
      continue;
    }
    const bool is_chunk = answer.kind == Answer::Kind::kChunk;
    if (is_chunk) link.is_for_rounds = false;
    send(id, *want, answer, turn);
    link.queued_bytes = turn.out.queued_bytes(id);
    want = wants.erase(want);
    --want_count_;
    if (is_chunk) return true;
  }
  return false;
}

void Server::send(LinkId id, const Want& want, const Answer& answer, Turn turn) {
  const bool is_chunk = answer.kind == Answer::Kind::kChunk;
  turn.out.send(id, {.type = is_chunk ? MessageType::kChunk : MessageType::kGone,
                     .run = run_,
                     .source = self_,
                     .authority = authority_of(want.name, want.epoch),
                     .payload = is_chunk ? answer.payload : encode(Gone{want.name.kind})});
}

}  // namespace net
