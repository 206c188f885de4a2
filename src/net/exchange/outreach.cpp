#include "net/exchange/outreach.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/log.h"
#include "net/probe.h"

namespace net {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration kCallPauseMin = milliseconds(200);
constexpr Duration kCallPauseMax = seconds(5);

}  // namespace

void Outreach::call_on(const std::vector<Donor>& peers, PeerId self, Turn turn) {
  const bool is_another = std::exchange(self_, self) != self;
  std::erase_if(calls_, [&](const auto& entry) {
    const Call& call = entry.second;
    const bool is_over = is_another || std::ranges::find(peers, call.who) == peers.end();
    if (is_over) hang_up(call, turn);
    return is_over;
  });
  for (const Donor& peer : peers) {
    if (!peer.data.host.empty()) calls_.try_emplace(peer.node_key, Call{.who = peer, .links = {}});
  }
  pump(turn);
}

void Outreach::pump(Turn turn) {
  for (auto& [key, call] : calls_) {
    std::vector<LinkId> lost;  // The server has its own reasons to close a link.
    for (const auto& [id, link] : call.links) {
      if (link.is_open && !server_.owns(id)) lost.push_back(id);
    }
    for (const LinkId id : lost) forget(call, id, turn.now);
    while (call.links.size() < call.link_count && turn.is_due(call.dial_at)) dial(call, turn);
  }
}

void Outreach::dial(Call& call, Turn turn) {
  const LinkId link = turn.out.connect(call.who.data);
  call.links[link] = {.dialled_at = turn.now};
  calls_by_link_[link] = call.who.node_key;
}

void Outreach::on_link_open(LinkId id, const Remote& remote, Turn turn) {
  Call& call = calls_.at(calls_by_link_.at(id));
  if (!remote.node.is_zero() && remote.node.number() != call.who.node_key) {
    probe<"another node answers where one is called on">();
    turn.out.close(id);
    return forget(call, id, turn.now);
  }
  Link& link = call.links.at(id);
  link.is_open = true;
  call.pause = {};
  const auto round_trip =
      std::chrono::duration_cast<std::chrono::microseconds>(turn.now - link.dialled_at);
  const Offer offer{
      .peer = self_,
      .round_trip_us = uint32_t(std::clamp<int64_t>(round_trip.count(), 0, UINT32_MAX))};
  turn.out.send(id, {.type = MessageType::kOffer,
                     .run = run_,
                     .source = self_,
                     .authority = {},
                     .payload = encode(offer)});
  server_.on_link_offered(id, call.who.peer, turn.now);
}

void Outreach::on_link_closed(LinkId id, Instant now) {
  if (server_.owns(id)) server_.on_link_closed(id);
  forget(calls_.at(calls_by_link_.at(id)), id, now);
}

// While others stand it may only be one too many.
void Outreach::forget(Call& call, LinkId id, Instant now) {
  call.links.erase(id);
  calls_by_link_.erase(id);
  call.link_count = std::max<size_t>(call.links.size(), 1);
  call.pause = std::clamp<Duration>(2 * call.pause, kCallPauseMin, kCallPauseMax);
  call.dial_at = now + call.pause;
}

void Outreach::on_invite(LinkId link, const Invite& invite) {
  calls_.at(calls_by_link_.at(link)).link_count = invite.links;
}

void Outreach::hang_up(const Call& call, Turn turn) {
  for (const auto& [id, link] : call.links) {
    if (!link.is_open || server_.owns(id)) turn.out.close(id);
    if (server_.owns(id)) server_.on_link_closed(id);
    calls_by_link_.erase(id);
  }
}

}  // namespace net
