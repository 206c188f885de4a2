#include "net/coordinator/reachability.h"

#include <algorithm>

#include "net/probe.h"

namespace net {
namespace {

using std::chrono::seconds;

// For the connection and the answer together.
constexpr Duration kAnswerWithin = seconds(10);
constexpr Duration kPauseMin = seconds(5);
constexpr Duration kPauseMax = seconds(60);
constexpr size_t kFailedMax = 1024;

}  // namespace

void Reachability::watch(PeerId peer, uint64_t node_key, const Endpoint& endpoint, Turn turn) {
  forget(peer, turn);
  Watched& watched = watched_[peer];
  watched = {.node_key = node_key, .endpoint = endpoint};
  if (endpoint.port == 0) {
    watched.finding = {.is_reachable = false, .reason = "it has none"};
    return;
  }
  const auto failed = failed_.find(endpoint.text());
  if (failed != failed_.end() && turn.now < failed->second.at + failed->second.pause) {
    probe<"an address that failed is named again at once">();
    watched.finding = {.is_reachable = false, .reason = failed->second.reason};
    watched.due_at = failed->second.at + failed->second.pause;
    return;
  }
  dial(peer, watched, turn);
}

void Reachability::take_word(PeerId peer, uint64_t node_key, const Endpoint& endpoint,
                             bool is_reachable) {
  watched_[peer] = {.node_key = node_key, .endpoint = endpoint};
  watched_[peer].finding = {.is_reachable = is_reachable,
                            .reason = is_reachable ? "" : "another coordinator could not"};
}

void Reachability::presume_unreachable(PeerId peer) {
  auto& finding = watched_.at(peer).finding;
  probe<"a port that the coordinator before could not dial">(!finding);
  if (!finding) finding = {.is_reachable = false, .reason = "nor could the coordinator before"};
}

void Reachability::forget(PeerId peer, Turn turn) {
  const auto found = watched_.find(peer);
  if (found == watched_.end()) return;
  if (found->second.link) {
    turn.out.close(*found->second.link);
    peers_by_link_.erase(*found->second.link);
  }
  watched_.erase(found);
}

std::optional<Reachability::Finding> Reachability::finding(PeerId peer) const {
  const auto found = watched_.find(peer);
  return found == watched_.end() ? std::nullopt : found->second.finding;
}

void Reachability::doubt(PeerId peer, Instant now) {
  const auto found = watched_.find(peer);
  if (found == watched_.end() || found->second.link || found->second.due_at) return;
  if (found->second.endpoint.port == 0) return;
  probe<"somebody cannot dial who could be dialled">();
  found->second.due_at = std::max(now, found->second.dialled_at + kPauseMin);
}

void Reachability::dial(PeerId peer, Watched& watched, Turn turn) {
  watched.due_at.reset();
  watched.dialled_at = turn.now;
  watched.nonce = ++last_nonce_ ^ uint64_t(turn.now.count()) << 20;
  watched.link = turn.out.connect(watched.endpoint);
  peers_by_link_[*watched.link] = peer;
}

void Reachability::on_link_open(LinkId link, const NodeId& node, Turn turn) {
  const PeerId peer = peers_by_link_.at(link);
  const Watched& watched = watched_.at(peer);
  if (!node.is_zero() && node.number() != watched.node_key) {
    turn.out.close(link);
    peers_by_link_.erase(link);
    return conclude(peer, {.is_reachable = false, .reason = "another node answers there"}, turn);
  }
  turn.out.send(link, {.type = MessageType::kDialBack,
                       .run = run_,
                       .source = kNobody,
                       .authority = {},
                       .payload = encode(DialBack{watched.nonce})});
}

void Reachability::on_link_closed(LinkId link, const std::string& reason, Turn turn) {
  const PeerId peer = peers_by_link_.at(link);
  peers_by_link_.erase(link);
  conclude(peer, {.is_reachable = false, .reason = reason}, turn);
}

void Reachability::on_message(LinkId link, const Message& message, Turn turn) {
  const PeerId peer = peers_by_link_.at(link);
  peers_by_link_.erase(link);
  turn.out.close(link);
  const Watched& watched = watched_.at(peer);
  const auto reply = decode<DialBackReply>(*message.payload);
  const bool is_its_own = message.type == MessageType::kDialBackReply && message.run == run_ &&
                          reply.ok() &&
                          reply->proof == dial_back_proof(watched.node_key, watched.nonce);
  probe<"another node answers at a data address">(!is_its_own);
  conclude(
      peer,
      {.is_reachable = is_its_own, .reason = is_its_own ? "" : "another program answers there"},
      turn);
}

void Reachability::on_tick(Turn turn) {
  for (auto& [peer, watched] : watched_) {
    if (watched.link && turn.is_due(watched.dialled_at + kAnswerWithin)) {
      turn.out.close(*watched.link);
      peers_by_link_.erase(*watched.link);
      probe<"a data port does not answer">();
      conclude(peer, {.is_reachable = false, .reason = "no answer in time"}, turn);
    } else if (!watched.link && watched.due_at && turn.is_due(*watched.due_at)) {
      dial(peer, watched, turn);
    }
  }
}

void Reachability::conclude(PeerId peer, Finding finding, Turn turn) {
  Watched& watched = watched_.at(peer);
  watched.link.reset();
  const std::string address = watched.endpoint.text();
  if (finding.is_reachable) {
    probe<"a data port can be dialled after all">(failed_.contains(address));
    failed_.erase(address);
  } else {
    if (failed_.size() >= kFailedMax && !failed_.contains(address)) failed_.clear();
    Failed& failed = failed_[address];
    failed.pause = std::clamp<Duration>(2 * failed.pause, kPauseMin, kPauseMax);
    failed.at = turn.now;
    failed.reason = finding.reason;
    watched.due_at = turn.now + failed.pause;
  }
  watched.finding = std::move(finding);
}

}  // namespace net
