#include "net/exchange/fetcher.h"

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace net {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration kDialPauseMin = milliseconds(200);
constexpr Duration kDialPauseMax = seconds(5);
// After everybody said that they do not have it.
constexpr Duration kRefusedPause = seconds(1);
// A link that owes something and brings nothing for so long is taken for dead. Long enough for one
// chunk of 4 MiB at 0.6 Mbit/s; longer than a server keeps a want (net/exchange/server.h), so that
// a healthy link has said something by then.
constexpr Duration kSilenceMax = seconds(60);

bool has_in_flight(const auto& lanes) {
  return std::ranges::any_of(lanes,
                             [](const auto& lane) { return !lane.second.in_flight.empty(); });
}

}  // namespace

void Fetcher::want(const ChunkName& name, std::vector<Donor> providers) {
  CHECK(!providers.empty(), "nobody to ask for chunk {}", name.chunk);
  for (const Donor& provider : providers) peers_[provider.peer].endpoint = provider.data;
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
  for (auto& [id, peer] : peers_) pump_peer(id, peer, turn);
  std::erase_if(peers_, [](const auto& entry) {
    const auto& lanes = entry.second.lanes;
    const bool is_idle = std::ranges::all_of(lanes, [](auto& l) { return l.second.is_empty(); });
    return is_idle && !entry.second.link;
  });
}

void Fetcher::pump_peer(PeerId id, Peer& peer, Turn turn) {
  const bool was_waiting = has_in_flight(peer.lanes);
  if (was_waiting && turn.now - peer.heard_at >= kSilenceMax) {
    base::log_info("peer {} owes chunks and is silent: dialling it again", id);
    drop_link(peer, turn);
  }
  if (peer.link && peer.dialled != peer.endpoint) drop_link(peer, turn);
  for (auto& [key, lane] : peer.lanes) {
    std::erase_if(lane.paused, [&, &pending = lane.pending](const auto& paused) {
      const bool is_over = paused.second <= turn.now;
      if (is_over) pending.insert(paused.first);
      return is_over;
    });
    while (!lane.pending.empty() && int64_t(lane.in_flight.size()) < in_flight_max_) {
      if (!peer.link) dial(id, peer, turn);
      if (!peer.link) return;
      const ChunkName name = *lane.pending.begin();
      lane.in_flight.insert(lane.pending.extract(lane.pending.begin()));
      turn.out.send(*peer.link, {.type = MessageType::kWant,
                                 .run = run_,
                                 .source = self_,
                                 .authority = authority_of(name, 0),
                                 .payload = encode(Want{name.kind})});
    }
  }
  if (!was_waiting) peer.heard_at = turn.now;
}

void Fetcher::dial(PeerId id, Peer& peer, Turn turn) {
  if (turn.now < peer.dial_at) return;
  peer.link = turn.out.connect(peer.endpoint);
  peer.is_dialling = true;
  peer.dialled = peer.endpoint;
  peers_by_link_[*peer.link] = id;
  peer.heard_at = turn.now;
  turn.out.send(*peer.link, {.type = MessageType::kDataHello,
                             .run = run_,
                             .source = self_,
                             .authority = {},
                             .payload = encode(DataHello{self_})});
}

void Fetcher::close_links(Turn turn) {
  for (auto& [id, peer] : peers_) {
    if (peer.link) turn.out.close(*peer.link);
  }
  peers_.clear();
  peers_by_link_.clear();
  for (const auto& [name, item] : items_) {
    for (const Donor& provider : item.providers) peers_[provider.peer].endpoint = provider.data;
    enqueue(name);
  }
}

void Fetcher::drop_link(Peer& peer, Turn turn) {
  turn.out.close(*peer.link);
  peer.is_dialling = false;
  on_link_closed(*peer.link, "closed here", turn);
}

void Fetcher::on_link_open(LinkId link) {
  Peer& peer = peers_.at(peers_by_link_.at(link));
  peer.is_dialling = peer.is_unreachable = false;
}

void Fetcher::on_link_closed(LinkId link, const std::string& reason, Turn turn) {
  const PeerId id = peers_by_link_.at(link);
  peers_by_link_.erase(link);
  Peer& peer = peers_.at(id);
  if (peer.is_dialling && !peer.is_unreachable) {
    base::log_warning("cannot reach peer {} at {}: {}; trying again", id, peer.endpoint.text(),
                      reason);
  }
  peer.is_unreachable |= std::exchange(peer.is_dialling, false);
  peer.link.reset();
  peer.pause = std::clamp<Duration>(2 * peer.pause, kDialPauseMin, kDialPauseMax);
  peer.dial_at = turn.now + peer.pause;
  std::vector<ChunkName> names;
  for (auto& [key, lane] : peer.lanes) {
    names.insert(names.end(), lane.in_flight.begin(), lane.in_flight.end());
    names.insert(names.end(), lane.pending.begin(), lane.pending.end());
    lane.in_flight.clear();
    lane.pending.clear();
  }
  for (const ChunkName& name : names) {
    Item& item = items_.at(name);
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
    base::log_warning("peer {} sent what was not asked for: its link is closed", id);
    drop_link(peer, turn);
    return std::nullopt;
  }
  peer.heard_at = turn.now;
  ChunkName name = chunk_name(*kind, message.authority);
  if (name.kind == WantKind::kContribution) name.contributor = id;
  const auto lane = peer.lanes.find({name.kind, name.kind == WantKind::kState ? 0 : name.fragment});
  if (lane == peer.lanes.end() || lane->second.in_flight.erase(name) == 0) return std::nullopt;
  if (message.type == MessageType::kGone) {
    refused(name, turn);
    return std::nullopt;
  }
  return Delivery{.name = name, .from = id};
}

void Fetcher::taken(const Delivery& delivery) {
  items_.erase(delivery.name);
  delivered_count_ += delivery.name.kind != WantKind::kState;
  Peer& peer = peers_.at(delivery.from);
  peer.has_sent = true;
  peer.pause = {};
}

void Fetcher::not_yet(const Delivery& delivery, Turn turn) {
  refused(delivery.name, turn);
}

void Fetcher::bad(const Delivery& delivery, const std::string& reason, Turn turn) {
  base::log_warning("peer {}: {}: its link is closed", delivery.from, reason);
  refused(delivery.name, turn);
  drop_link(peers_.at(delivery.from), turn);
}

void Fetcher::refused(const ChunkName& name, Turn turn) {
  Item& item = items_.at(name);
  item.turn = (item.turn + 1) % item.providers.size();
  if (++item.refusal_count % item.providers.size() == 0) {
    lane_of(name).paused[name] = turn.now + kRefusedPause;
  } else {
    enqueue(name);
  }
}

Fetcher::Debts Fetcher::take_debts() {
  Debts debts;
  for (auto& [id, peer] : peers_) {
    const uint64_t bit = uint64_t{1} << id;
    bool owes_some = false;
    for (const auto& [key, lane] : peer.lanes) {
      if (lane.is_empty() || key.first == WantKind::kState) continue;
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
  const uint32_t fragment = name.kind == WantKind::kState ? 0 : name.fragment;
  return peers_[item.providers[item.turn].peer].lanes[{name.kind, fragment}];
}

void Fetcher::enqueue(const ChunkName& name) {
  lane_of(name).pending.insert(name);
}

void Fetcher::withdraw(const ChunkName& name) {
  Lane& lane = lane_of(name);
  lane.pending.erase(name);
  lane.in_flight.erase(name);
  lane.paused.erase(name);
}

}  // namespace net
