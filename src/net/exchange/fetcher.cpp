#include "net/exchange/fetcher.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "net/probe.h"

namespace net {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration kDialPauseMin = milliseconds(200);
constexpr Duration kDialPauseMax = seconds(5);
// Whoever cannot be dialled dials when it is invited to.
constexpr Duration kInvitedWithin = seconds(5);
// After everybody said that they do not have it.
constexpr Duration kRefusedPause = seconds(1);
// A peer that owes something and brings nothing for so long is taken for dead. Long enough for one
// chunk of 4 MiB at 0.6 Mbit/s; longer than a server keeps a want (net/exchange/server.h), so that
// a healthy link has said something by then.
constexpr Duration kSilenceMax = seconds(60);
// One of its links, while others bring something: it may have got the smaller share of the line.
constexpr Duration kLinkSilenceMax = 2 * kSilenceMax;
// To all peers: what they queue for us stays within a server's budget.
constexpr int64_t kFetchLinksMax = 64;
// To one peer: small chunks in many lanes stay below what a server takes of one link.
constexpr int64_t kPeerWantsMax = 2048;
constexpr int64_t kWantsPerLink = 2;  // One that comes and the next, whatever their size.
constexpr int64_t kChunkBytesGuess = 1024 * 1024;
// A donor that brings nothing for so long may be in the middle of rounds; others may have time.
// Longer each time that a chunk was moved.
constexpr Duration kOwedMax = seconds(5);

}  // namespace

bool Fetcher::Peer::is_idle() const {
  return std::ranges::all_of(lanes, [](const auto& lane) { return lane.second.is_empty(); });
}

void Fetcher::Peer::start_anew() {
  dial_at = {};
  pause = {};
  has_sent = is_unreachable = false;
}

bool Fetcher::Peer::has_in_flight() const {
  return std::ranges::any_of(lanes, [](const auto& l) { return !l.second.in_flight.empty(); });
}

bool Fetcher::Peer::has_pending() const {
  return std::ranges::any_of(lanes, [](const auto& l) { return !l.second.pending.empty(); });
}

void Fetcher::know(const Donor& provider) {
  const auto [found, is_new] = peers_.try_emplace(provider.peer, Path(limits_.links_per_peer_max));
  Peer& peer = found->second;
  if (!is_new && peer.endpoint != provider.data) peer.path = Path(limits_.links_per_peer_max);
  peer.endpoint = provider.data;
  peer.node_key = provider.node_key;
  peer.is_known = true;
}

void Fetcher::want(const ChunkName& name, std::vector<Donor> providers) {
  CHECK(!providers.empty(), "nobody to ask for chunk {}", name.chunk);
  for (const Donor& provider : providers) know(provider);
  const auto found = items_.find(name);
  if (found == items_.end()) {
    items_.emplace(name, Item{.providers = std::move(providers)});
    enqueue(name);
    return;
  }
  Item& item = found->second;
  const PeerId asked = item.providers[item.turn].peer;
  const auto same = std::ranges::find(providers, asked, &Donor::peer);
  if (same != providers.end()) {
    item.turn = size_t(same - providers.begin());
    item.providers = std::move(providers);
    return;
  }
  probe<"a chunk is wanted of another provider">();
  withdraw(name);
  item = Item{.providers = std::move(providers)};
  enqueue(name);
}

void Fetcher::forget_if(const std::function<bool(const ChunkName&)>& is_unwanted) {
  for (auto it = items_.begin(); it != items_.end();) {
    if (!is_unwanted(it->first)) {
      ++it;
      continue;
    }
    withdraw(it->first);
    it = items_.erase(it);
  }
}

void Fetcher::pump(Turn turn) {
  busy_lane_count_ = 0;
  for (const auto& [id, peer] : peers_) {
    busy_lane_count_ +=
        std::ranges::count_if(peer.lanes, [](const auto& lane) { return !lane.second.is_empty(); });
  }
  for (auto& [id, peer] : peers_) pump_peer(id, peer, turn);
  for (const WantKind kind : {WantKind::kState, WantKind::kPast}) share_out(kind, turn);
}

// Blocks were dealt out to donors in equal parts, but donors are not equally quick.
void Fetcher::share_out(WantKind kind, Turn turn) {
  for (auto& [id, peer] : peers_) {
    while (is_hungry(peer, kind)) {
      const auto name = spare(kind, id, turn);
      if (!name) break;
      withdraw(*name);
      Item& item = items_.at(*name);
      item.turn =
          size_t(std::ranges::find(item.providers, id, &Donor::peer) - item.providers.begin());
      ++item.moved_count;
      enqueue(*name);
      pump_peer(id, peer, turn);
    }
  }
}

// It has a link that stands, brings something, and could be asked for more.
bool Fetcher::is_hungry(const Peer& peer, WantKind kind) const {
  const auto is_open = [](const auto& link) { return link.second.is_open; };
  if (std::ranges::none_of(peer.links, is_open)) return false;
  const auto lane = peer.lanes.find({kind, 0});
  if (lane == peer.lanes.end()) return false;
  return lane->second.pending.empty() && lane->second.paused.empty() &&
         lane->second.wants_out() < kWantsPerLink;
}

// The last of what another one has not been asked for yet, of whoever has most of it; or else what
// one owes and does not bring.
std::optional<ChunkName> Fetcher::spare(WantKind kind, PeerId hungry, Turn turn) const {
  const auto may_have = [&](const ChunkName& name) {
    return std::ranges::find(items_.at(name).providers, hungry, &Donor::peer) !=
           items_.at(name).providers.end();
  };
  const std::set<ChunkName>* most = nullptr;
  std::optional<ChunkName> owed;
  for (const auto& [id, peer] : peers_) {
    const auto found = peer.lanes.find({kind, 0});
    if (id == hungry || found == peer.lanes.end()) continue;
    const Lane& lane = found->second;
    if (!lane.pending.empty() && (!most || lane.pending.size() > most->size()))
      most = &lane.pending;
    for (const auto& [name, asked] : lane.in_flight) {
      const Duration patience =
          kOwedMax * (int64_t{1} << std::min<int64_t>(items_.at(name).moved_count, 6));
      if (turn.is_due(peer.heard_at + patience) && may_have(name)) owed = name;
    }
  }
  if (most && may_have(*most->rbegin())) return *most->rbegin();
  return owed;
}

void Fetcher::pump_peer(PeerId id, Peer& peer, Turn turn) {
  const bool was_waiting = peer.has_in_flight();
  if (was_waiting) drop_silent(id, peer, turn);
  if (peer.is_known) drop_strangers(peer, turn);
  for (auto& [key, lane] : peer.lanes) {
    std::erase_if(lane.paused, [&, &pending = lane.pending](const auto& paused) {
      const bool is_over = turn.is_due(paused.second);
      if (is_over) pending.insert(paused.first);
      return is_over;
    });
    while (!lane.pending.empty() && lane.wants_out() < room(peer, lane)) {
      if (peer.links.empty()) dial(id, peer, turn);
      if (peer.links.empty()) return;
      ask(peer, lane, turn);
    }
  }
  adapt_links(id, peer, turn);
  if (!peer.has_in_flight()) peer.path.on_idle();
  if (!was_waiting) peer.heard_at = turn.now;
  if (peer.links.empty() && peer.is_idle()) peer.start_anew();
}

// The chunks that links are in the middle of are not in flight as a whole: they come on top, or the
// window would bound the rate that it is made from.
int64_t Fetcher::room(const Peer& peer, const Lane& lane) const {
  const auto window = peer.path.window_bytes();
  if (!window || lane.chunk_bytes == 0) return limits_.wants_in_flight_max;
  const int64_t share = limits_.window_bytes_max / std::max<int64_t>(busy_lane_count_, 1);
  const int64_t begun = kWantsPerLink * std::max<int64_t>(int64_t(peer.links.size()), 1);
  const int64_t wants = std::min(*window, share) / lane.chunk_bytes + begun;
  return std::min(wants, std::max<int64_t>(kPeerWantsMax / int64_t(peer.lanes.size()), 1));
}

void Fetcher::ask(Peer& peer, Lane& lane, Turn turn) {
  const LinkId id = least_loaded(peer);
  Link& link = peer.links.at(id);
  const ChunkName name = *lane.pending.begin();
  const int64_t bytes = lane.chunk_bytes > 0 ? lane.chunk_bytes : kChunkBytesGuess;
  lane.pending.erase(lane.pending.begin());
  lane.in_flight[name] = {.link = id, .bytes = bytes};
  if (link.want_count++ == 0) link.heard_at = turn.now;
  link.bytes_in_flight += bytes;
  turn.out.send(id, {.type = MessageType::kWant,
                     .run = run_,
                     .source = self_,
                     .authority = authority_of(name, 0),
                     .payload = encode(Want{name.kind})});
}

// Of those that stand, if one does; those that are more than the path needs get nothing more to do.
LinkId Fetcher::least_loaded(const Peer& peer) {
  const auto is_open = [](const auto& link) { return link.second.is_open; };
  const bool is_any_open = std::ranges::any_of(peer.links, is_open);
  auto best = peer.links.end();
  int64_t count = 0;
  for (auto it = peer.links.begin(); it != peer.links.end(); ++it) {
    if (is_any_open && !it->second.is_open) continue;
    if (count++ == peer.path.link_count()) break;
    const bool is_better =
        best == peer.links.end() || it->second.bytes_in_flight < best->second.bytes_in_flight;
    if (is_better) best = it;
  }
  return best->first;
}

void Fetcher::drop_silent(PeerId id, Peer& peer, Turn turn) {
  if (turn.is_due(peer.heard_at + kSilenceMax)) {
    probe<"a peer owes chunks and is silent for long">();
    base::log_info("peer {} owes chunks and is silent: dialling it again", id);
    return drop_links(peer, turn);
  }
  std::vector<LinkId> silent;
  for (const auto& [link_id, link] : peer.links) {
    if (link.want_count > 0 && turn.is_due(link.heard_at + kLinkSilenceMax))
      silent.push_back(link_id);
  }
  for (const LinkId link : silent) drop_link(link, turn);
}

// A number can be given to another node, and a node may be found elsewhere.
void Fetcher::drop_strangers(Peer& peer, Turn turn) {
  std::vector<LinkId> strangers;
  for (const auto& [id, link] : peer.links) {
    const bool is_another = !link.node.is_zero() && link.node.number() != peer.node_key;
    if (is_another || link.endpoint != peer.endpoint) strangers.push_back(id);
  }
  probe<"a number was given to another node">(!strangers.empty());
  for (const LinkId id : strangers) drop_link(id, turn);
}

// An additional link only where one stands: who cannot be reached is dialled once at a time.
void Fetcher::adapt_links(PeerId id, Peer& peer, Turn turn) {
  const auto is_open = [](const auto& link) { return link.second.is_open; };
  if (std::ranges::none_of(peer.links, is_open)) return;
  const int64_t target = peer.path.link_count();
  while (int64_t(peer.links.size()) < target && peer.has_in_flight() && turn.is_due(peer.dial_at)) {
    if (int64_t(peers_by_link_.size()) >= kFetchLinksMax) {
      return peer.path.on_refused(int64_t(peer.links.size()), turn.now);
    }
    if (peer.endpoint.host.empty()) return invite(peer, target, turn);
    dial(id, peer, turn);
  }
  std::vector<LinkId> unused;
  for (auto it = peer.links.rbegin(); it != peer.links.rend(); ++it) {
    if (int64_t(peer.links.size() - unused.size()) <= target) break;
    if (it->second.want_count == 0) unused.push_back(it->first);
  }
  for (const LinkId link : unused) drop_link(link, turn);
}

// Links that do not come within a while are refused.
void Fetcher::invite(Peer& peer, int64_t count, Turn turn) {
  const bool is_refused = peer.invited_count >= count;
  peer.invited_count = is_refused ? 0 : count;
  if (is_refused) return peer.path.on_refused(int64_t(peer.links.size()), turn.now);
  peer.dial_at = turn.now + kInvitedWithin;
  turn.out.send(peer.links.begin()->first,
                {.type = MessageType::kInvite,
                 .run = run_,
                 .source = self_,
                 .authority = {},
                 .payload = encode(Invite{uint32_t(std::min<int64_t>(count, kOfferedLinksMax))})});
}

bool Fetcher::adopt(LinkId id, const Offer& offer, const NodeId& node, Turn turn) {
  if (offer.peer == self_ || int64_t(peers_by_link_.size()) >= kFetchLinksMax) return false;
  const auto [found, is_new] = peers_.try_emplace(offer.peer, Path(limits_.links_per_peer_max));
  Peer& peer = found->second;
  drop_outlived(peer, node, turn);
  if (int64_t(peer.links.size()) >= limits_.links_per_peer_max) return false;
  probe<"a peer that cannot be dialled offers a link">();
  if (peer.links.empty()) peer.heard_at = turn.now;
  peer.is_unreachable = false;
  peer.links[id] = {.node = node, .dialled_at = turn.now, .is_open = true, .heard_at = turn.now};
  if (int64_t(peer.links.size()) >= peer.invited_count) peer.invited_count = 0;
  peer.path.on_connected(std::chrono::microseconds(offer.round_trip_us));
  peers_by_link_[id] = offer.peer;
  return true;
}

// Nobody offers more links than it was invited to, so whoever does has lost the oldest one; or that
// one led to another node, which had the number before and is silent now.
void Fetcher::drop_outlived(Peer& peer, const NodeId& node, Turn turn) {
  const int64_t expected = std::max(peer.invited_count, peer.path.link_count());
  std::vector<LinkId> offered;
  for (const auto& [id, link] : peer.links) {
    if (link.endpoint.host.empty() && link.node == node) offered.push_back(id);
  }
  if (int64_t(offered.size()) < expected) return;
  probe<"a peer offers a link in the place of one that it has lost">();
  drop_link(offered.front(), turn);
}

void Fetcher::dial(PeerId id, Peer& peer, Turn turn) {
  if (peer.endpoint.host.empty() || !turn.is_due(peer.dial_at)) return;
  if (peer.links.empty()) peer.heard_at = turn.now;
  const LinkId link = turn.out.connect(peer.endpoint);
  peer.links[link] = {.endpoint = peer.endpoint, .dialled_at = turn.now, .heard_at = turn.now};
  peers_by_link_[link] = id;
  turn.out.send(link, {.type = MessageType::kDataHello,
                       .run = run_,
                       .source = self_,
                       .authority = {},
                       .payload = encode(DataHello{self_})});
}

void Fetcher::close_links(Turn turn) {
  for (const auto& [link, id] : peers_by_link_) turn.out.close(link);
  peers_.clear();
  peers_by_link_.clear();
  for (auto& [name, item] : items_) {
    item.is_delivered = false;
    for (const Donor& provider : item.providers) know(provider);
    enqueue(name);
  }
}

void Fetcher::drop_link(LinkId link, Turn turn) {
  turn.out.close(link);
  forget_link(link, turn);
}

void Fetcher::drop_links(Peer& peer, Turn turn) {
  while (!peer.links.empty()) drop_link(peer.links.begin()->first, turn);
}

void Fetcher::on_link_open(LinkId link, const NodeId& node, Turn turn) {
  Peer& peer = peer_of(link);
  if (!node.is_zero() && node.number() != peer.node_key) {
    turn.out.close(link);
    return on_link_closed(link, "another node answers there", turn);
  }
  peer.is_unreachable = false;
  peer.links.at(link).is_open = true;
  peer.path.on_connected(turn.now - peer.links.at(link).dialled_at);
}

void Fetcher::on_link_closed(LinkId link, const std::string& reason, Turn turn) {
  const PeerId id = peers_by_link_.at(link);
  Peer& peer = peers_.at(id);
  const Link lost = peer.links.at(link);
  const auto left = int64_t(peer.links.size()) - 1;
  if (left == 0 && !lost.is_open && !std::exchange(peer.is_unreachable, true)) {
    probe<"a peer cannot be reached">();
    base::log_warning("cannot reach peer {} at {}: {}; trying again", id, peer.endpoint.text(),
                      reason);
  }
  if (left > 0) peer.dial_at = turn.now + kDialPauseMin;
  if (left > 0 && !lost.has_answered) peer.path.on_refused(left, turn.now);
  forget_link(link, turn);
}

void Fetcher::forget_link(LinkId link, Turn turn) {
  Peer& peer = peer_of(link);
  peers_by_link_.erase(link);
  peer.links.erase(link);
  for (auto& [key, lane] : peer.lanes) {
    std::erase_if(lane.in_flight, [&, &pending = lane.pending](const auto& asked) {
      if (asked.second.link != link) return false;
      pending.insert(asked.first);
      return true;
    });
  }
  if (peer.links.empty()) on_last_link_lost(peer, turn);
}

void Fetcher::on_last_link_lost(Peer& peer, Turn turn) {
  peer.pause = std::clamp<Duration>(2 * peer.pause, kDialPauseMin, kDialPauseMax);
  peer.dial_at = turn.now + peer.pause;
  peer.path.on_idle();
  std::vector<ChunkName> names;
  for (auto& [key, lane] : peer.lanes) {
    names.insert(names.end(), lane.pending.begin(), lane.pending.end());
    lane.pending.clear();
  }
  for (const ChunkName& name : names) {
    Item& item = items_.at(name);
    probe<"a lost link's chunks go to another provider">(item.providers.size() > 1);
    item.turn = (item.turn + 1) % item.providers.size();
    enqueue(name);
  }
}

std::optional<Fetcher::Delivery> Fetcher::on_message(LinkId link, const Message& message,
                                                     Turn turn) {
  const PeerId id = peers_by_link_.at(link);
  Peer& peer = peers_.at(id);
  const auto kind = read_kind(*message.payload);
  const bool is_answer = message.type == MessageType::kChunk || message.type == MessageType::kGone;
  if (!is_answer || !kind.ok() || message.run != run_) {
    base::log_warning("peer {} sent what was not asked for: its links are closed", id);
    drop_links(peer, turn);
    return std::nullopt;
  }
  peer.heard_at = peer.links.at(link).heard_at = turn.now;
  peer.links.at(link).has_answered = true;
  ChunkName name = chunk_name(*kind, message.authority);
  if (is_of_contributor(name.kind)) name.contributor = id;
  const auto lane = peer.lanes.find(lane_key(name));
  if (lane == peer.lanes.end() || !take_from_flight(peer, lane->second, name)) return std::nullopt;
  if (message.type == MessageType::kGone) {
    probe<"a provider does not have what is wanted">();
    refused(name, turn);
    return std::nullopt;
  }
  const auto bytes = int64_t(message.payload->size());
  lane->second.chunk_bytes = std::max(lane->second.chunk_bytes, bytes);
  const auto is_open = [](const auto& entry) { return entry.second.is_open; };
  peer.path.on_arrival(bytes, std::ranges::count_if(peer.links, is_open), peer.has_pending(),
                       turn.now);
  peer.path.on_carried(bytes, peer.owes_contributions(), turn.now);
  items_.at(name).is_delivered = true;
  ++lane->second.delivered_count;
  return Delivery{.name = name, .from = id};
}

int64_t Fetcher::lacking_count() const {
  return std::ranges::count_if(
      items_, [](const auto& item) { return is_for_catching_up(item.first.kind); });
}

void Fetcher::taken(const Delivery& delivery) {
  settle(delivery.name);
  items_.erase(delivery.name);
  delivered_count_ += is_of_round(delivery.name.kind);
  Peer& peer = peers_.at(delivery.from);
  peer.has_sent = true;
  peer.pause = {};
}

void Fetcher::not_yet(const Delivery& delivery, Turn turn) {
  settle(delivery.name);
  refused(delivery.name, turn);
}

void Fetcher::bad(const Delivery& delivery, const std::string& reason, Turn turn) {
  settle(delivery.name);
  probe<"a peer delivers what cannot be">();
  base::log_warning("peer {}: {}: its links are closed", delivery.from, reason);
  refused(delivery.name, turn);
  drop_links(peers_.at(delivery.from), turn);
}

void Fetcher::refused(const ChunkName& name, Turn turn) {
  Item& item = items_.at(name);
  item.turn = (item.turn + 1) % item.providers.size();
  if (++item.refusal_count % item.providers.size() == 0) {
    probe<"all providers have refused">();
    lane_of(name).paused[name] = turn.now + kRefusedPause;
    const bool may_be_gone = name.kind == WantKind::kPast || name.kind == WantKind::kDigests;
    if (may_be_gone) nobody_has_.push_back(name);
  } else {
    enqueue(name);
  }
}

bool Fetcher::Peer::owes_contributions() const {
  return std::ranges::any_of(lanes, [](const auto& entry) {
    return entry.first.first == WantKind::kContribution && !entry.second.is_empty();
  });
}

Measured Fetcher::measured() const {
  using std::chrono::microseconds;
  Measured measured;
  for (const auto& [id, peer] : peers_) {
    const auto round_trip = peer.path.round_trip();
    if (!round_trip || id >= kMembersMax) continue;
    const auto us = std::chrono::duration_cast<microseconds>(*round_trip).count();
    measured.ways.push_back({.peer = id,
                             .round_trip_us = uint32_t(std::clamp<int64_t>(us, 1, UINT32_MAX)),
                             .bytes_per_second = uint64_t(peer.path.carried_per_second())});
  }
  return measured;
}

Fetcher::Debts Fetcher::take_debts() {
  Debts debts;
  for (auto& [id, peer] : peers_) {
    const uint64_t bit = uint64_t{1} << id;
    bool owes_some = false;
    for (const auto& [key, lane] : peer.lanes) {
      if (lane.is_empty() || !is_of_round(key.first)) continue;
      (key.first == WantKind::kContribution ? debts.contribution : debts.result) |= bit;
      owes_some = true;
    }
    if (owes_some && !peer.has_sent) debts.silent |= bit;
    if (owes_some && peer.is_unreachable) debts.unreachable |= bit;
    peer.has_sent = false;
  }
  return debts;
}

Fetcher::Lane& Fetcher::lane_of(const ChunkName& name) {
  const Item& item = items_.at(name);
  return peers_.at(item.providers[item.turn].peer).lanes[lane_key(name)];
}

void Fetcher::enqueue(const ChunkName& name) {
  lane_of(name).pending.insert(name);
}

void Fetcher::withdraw(const ChunkName& name) {
  Lane& lane = lane_of(name);
  Peer& peer = peers_.at(items_.at(name).providers[items_.at(name).turn].peer);
  lane.pending.erase(name);
  lane.paused.erase(name);
  take_from_flight(peer, lane, name);
  settle(name);
}

void Fetcher::settle(const ChunkName& name) {
  if (std::exchange(items_.at(name).is_delivered, false)) --lane_of(name).delivered_count;
}

// False if it was not asked for, or is not any more.
bool Fetcher::take_from_flight(Peer& peer, Lane& lane, const ChunkName& name) {
  const auto found = lane.in_flight.find(name);
  if (found == lane.in_flight.end()) return false;
  Link& link = peer.links.at(found->second.link);
  --link.want_count;
  link.bytes_in_flight -= found->second.bytes;
  lane.in_flight.erase(found);
  return true;
}

}  // namespace net
