#include "net/transcript/printer.h"

#include <algorithm>
#include <cstring>
#include <fmt/ranges.h>

#include "net/cluster.h"

namespace net {
namespace {

using std::chrono::duration_cast;
using std::chrono::milliseconds;

constexpr Instant kBeginning = std::chrono::seconds(1000);  // Of every world.
constexpr Duration kSameTime = milliseconds(300);
constexpr Duration kSameTransfer = std::chrono::seconds(5);

template <class T>
std::string list(const std::vector<T>& items) {
  return fmt::format("{}", fmt::join(items, " "));
}

std::string fragment_name(int64_t fragment) {
  return fragment == 0 ? "" : fmt::format(" of fragment {}", fragment);
}

std::string round_name(const Authority& authority) {
  return fmt::format("round {}{}", authority.round, fragment_name(authority.fragment));
}

std::string chunk_kind(const Message& message) {
  const Authority& authority = message.authority;
  switch (WantKind((*message.payload)[0])) {
    case WantKind::kContribution:
      return "contributions to " + round_name(authority);
    case WantKind::kResult:
      return "results of " + round_name(authority);
    case WantKind::kState:
      return "blocks of the state" + fragment_name(authority.fragment);
    case WantKind::kPast:
      return "results of " + round_name(authority) + ", to replay";
    case WantKind::kDigests:
      return "digests of the state" + fragment_name(authority.fragment);
    case WantKind::kSubtotal:
      return "subtotals of " + round_name(authority);
    case WantKind::kProof:
      return "contributions to " + round_name(authority) + ", to sum again";
  }
  return "unknown chunks";
}

std::vector<int> places_of(const Open& open) {
  return {open.places.begin(), open.places.end()};
}

std::string versions(const std::vector<FragmentState>& states) {
  std::vector<std::string> all;
  for (const FragmentState& state : states) {
    all.push_back(state.version == kNoVersion ? "none" : fmt::format("{}", state.version));
  }
  return "version " + list(all);
}

}  // namespace

std::string name_of(HostId host) {
  if (host == kStranger) return "stranger";
  return host == 0 ? "coordinator" : std::string(1, char('a' + host - 1));
}

std::string name_of(const Endpoint& address) {
  for (HostId host = 0; host < HostId(kNodesMax); ++host) {
    if (Cluster::address(host) == address) return name_of(host);
  }
  return address.text();
}

// --- What is shown.

void Printer::said(Instant now, HostId from, HostId to, const Message& message) {
  if (message.type == MessageType::kWelcome)
    peers_[decode<Welcome>(*message.payload)->peer] = name_of(to);
  if (message.type == MessageType::kMembership) {
    // What a node that coordinates gives itself passes no link.
    const auto membership = decode<Membership>(*message.payload);
    for (const Seat& seat : membership->members) peers_[seat.peer] = name_of(seat.data);
  }
  const bool is_chunk = message.type == MessageType::kChunk;
  if (is_chunk && !(shows_chunks_ && shows_chunks_(to))) return;
  const std::string text = is_chunk ? chunk_kind(message) : text_of(message);
  if (text.empty()) return;
  add({.first = now,
       .last = now,
       .from = {name_of(from)},
       .to = {name_of(to)},
       .verb = {},
       .text = text,
       .count = is_chunk});
}

void Printer::reported(Instant now, HostId node, const MemberEvent& event) {
  const std::string text = text_of(event);
  if (text.empty()) return;
  add({.first = now, .last = now, .from = {name_of(node)}, .to = {}, .verb = ": ", .text = text});
}

void Printer::warned(Instant now, HostId host, const std::string& text) {
  add({.first = now,
       .last = now,
       .from = {name_of(host)},
       .to = {},
       .verb = " log: ",
       .text = text});
}

void Printer::happened(Instant now, const std::string& text) {
  add({.first = now, .last = now, .from = {}, .to = {}, .verb = {}, .text = text});
}

// The newest lines are at the end.
void Printer::add(Line line) {
  for (auto before = lines_.rbegin(); before != lines_.rend(); ++before) {
    if (before->last + kSameTransfer < line.first) break;
    if (joins(*before, line)) return;
  }
  lines_.push_back(std::move(line));
}

bool Printer::joins(Line& line, const Line& next) const {
  if (line.text != next.text || line.verb != next.verb || line.from.empty()) return false;
  if (line.from == next.from && line.to == next.to && line.count > 0) {
    ++line.count;
    line.last = next.last;
    return true;
  }
  if (line.last + kSameTime < next.first || line.count > 0) return false;
  const auto widen = [](std::vector<std::string>& names, const std::string& name) {
    if (std::ranges::find(names, name) != names.end()) return false;
    names.insert(std::ranges::upper_bound(names, name), name);
    return true;
  };
  if (line.from == next.from && !next.to.empty()) return widen(line.to, next.to.front());
  return line.to == next.to && widen(line.from, next.from.front());
}

std::string Printer::take() {
  std::string all;
  for (const Line& line : lines_) {
    all += fmt::format("{:9.3f}  {}",
                       double(duration_cast<milliseconds>(line.first - kBeginning).count()) / 1000,
                       list(line.from));
    if (!line.to.empty()) all += " -> " + list(line.to) + ": ";
    all += line.verb;
    all += line.text;
    if (line.count > 0) all += fmt::format(": {}", line.count);
    all += "\n";
  }
  lines_.clear();
  return all;
}

// --- What is said.

std::string Printer::text_of(const Message& message) {
  const Authority& authority = message.authority;
  const std::span<const std::byte> bytes = *message.payload;
  switch (message.type) {
    case MessageType::kHello:
      if (const auto hello = decode<Hello>(bytes); hello.ok())
        return fmt::format("hello, I have {}", versions(hello->states));
      return "garbage";
    case MessageType::kWelcome:
      return fmt::format("welcome, you are peer {}", decode<Welcome>(bytes)->peer);
    case MessageType::kReject:
      return "rejected: " + decode<Reject>(bytes)->reason;
    case MessageType::kCatchUp: {
      const auto catch_up = decode<CatchUp>(bytes);
      return fmt::format("the state in force is {}{}", versions(catch_up->states),
                         catch_up->donors.empty() ? "" : "; ask " + donors(catch_up->donors));
    }
    case MessageType::kSynced:
      return fmt::format("I have {}", versions(decode<Synced>(bytes)->states));
    case MessageType::kStart:
      return fmt::format("you are active, from step {}", decode<Start>(bytes)->step);
    case MessageType::kReady: {
      const auto ready = decode<Ready>(bytes);
      if (ready->weight_tokens < 0) return "not ready any more" + fragment_name(authority.fragment);
      return fmt::format("ready{}{}", fragment_name(authority.fragment),
                         ready->weight_tokens == 0 ? ", with nothing" : "");
    }
    case MessageType::kOpen:
      return text_of(*decode<Open>(bytes), authority);
    case MessageType::kReown:
      return text_of(*decode<Reown>(bytes), authority);
    case MessageType::kDone:
      return "I have all results of " + round_name(authority);
    case MessageType::kCommit:
      return "commit " + round_name(authority);
    case MessageType::kAbort:
      return "abort " + round_name(authority);
    case MessageType::kApplied:
      return "applied " + round_name(authority);
    case MessageType::kLeave:
      return "I leave: " + decode<Leave>(bytes)->reason;
    case MessageType::kNotice: {
      const auto notice = decode<Notice>(bytes);
      return fmt::format("you {}: {}", notice->contributes ? "contribute" : "do not contribute",
                         notice->reason);
    }
    case MessageType::kRedirect:
      return "ask " + name_of(decode<Redirect>(bytes)->coordinator);
    case MessageType::kStandBy:
      return "I do not coordinate, but may have to";
    case MessageType::kVisits: {
      const auto visits = decode<Visits>(bytes);
      return visits->peers.empty() ? "you need not dial anybody"
                                   : "nobody can dial you: dial " + donors(visits->peers);
    }
    case MessageType::kOffer:
      return "you cannot dial me: ask here";
    default:  // Said all the time, or about chunks.
      return {};
  }
}

std::string Printer::text_of(const Open& open, const Authority& authority) {
  std::vector<PeerId> contributors;
  for (const Contributor& one : open.contributors) contributors.push_back(one.peer);
  std::vector<PeerId> owners;
  for (const uint8_t owner : open.owners) owners.push_back(contributors[owner]);
  contributors_[{authority.fragment, authority.round}] = contributors;
  const std::string plan =
      open.plan == PlanKind::kDirect
          ? ""
          : fmt::format(", {} {}", net::name_of(open.plan), list(places_of(open)));
  return fmt::format("open {} with the work of {}{}; owners of the chunks: {}",
                     round_name(authority), peers(contributors), plan, peers(owners));
}

std::string Printer::text_of(const Reown& reown, const Authority& authority) const {
  std::string text =
      fmt::format("{} goes on without {}", round_name(authority), peers(reown.excluded));
  const auto& contributors = contributors_.at({authority.fragment, authority.round});
  for (const Reown::Move& move : reown.moves) {
    text += fmt::format("{} chunk {} to {}", &move == &reown.moves.front() ? ";" : ",", move.chunk,
                        peer(contributors[move.owner]));
  }
  return text;
}

// --- What members report.

std::string Printer::text_of(const MemberEvent& event) const {
  if (const auto* committed = std::get_if<Committed>(&event)) return text_of(*committed);
  if (std::holds_alternative<CatchUpNeeded>(event)) return "must catch up";
  if (const auto* fetched = std::get_if<Fetched>(&event))
    return "fetched " + versions(fetched->expected);
  if (const auto* started = std::get_if<Started>(&event))
    return fmt::format("training, from step {} of the run", started->step);
  if (const auto* standing = std::get_if<StandingChanged>(&event))
    return standing->contributes ? "a contributor again" : "no contributor any more";
  if (const auto* stopped = std::get_if<Stopped>(&event)) {
    return fmt::format("stopped with exit code {}: {}", stopped->restart_makes_sense ? 3 : 2,
                       stopped->reason);
  }
  return {};
}

// Chunks may differ in who is in them.
std::string Printer::text_of(const Committed& committed) const {
  const auto known = contributors_.find({committed.fragment, committed.round});
  if (known == contributors_.end())  // A node that coordinates opened it for itself alone.
    return fmt::format("round {}{} is committed", committed.round,
                       fragment_name(committed.fragment));
  const auto& contributors = known->second;
  std::map<std::string, std::vector<size_t>> chunks;  // By whose work is in them.
  for (size_t chunk = 0; chunk < committed.results.size(); ++chunk) {
    uint64_t mask = 0;
    std::memcpy(&mask, committed.results[chunk].bytes->data() + 1, sizeof(mask));
    std::vector<PeerId> in;
    for (size_t i = 0; i < contributors.size(); ++i) {
      if ((mask >> i & 1) != 0) in.push_back(contributors[i]);
    }
    chunks[peers(in)].push_back(chunk);
  }
  std::vector<std::string> parts;
  for (const auto& [who, which] : chunks) {
    parts.push_back("the work of " + who + (chunks.size() == 1 ? "" : " in chunks " + list(which)));
  }
  return fmt::format("round {}{} is committed, with {}", committed.round,
                     fragment_name(committed.fragment), fmt::join(parts, ", "));
}

std::string Printer::donors(const std::vector<Donor>& donors) const {
  std::vector<std::string> names;
  for (const Donor& one : donors)
    names.push_back(one.data.host.empty() ? peer(one.peer) : name_of(one.data));
  return list(names);
}

std::string Printer::peers(const std::vector<PeerId>& peers) const {
  std::vector<std::string> names;
  for (const PeerId one : peers) names.push_back(peer(one));
  return list(names);
}

std::string Printer::peer(PeerId peer) const {
  const auto known = peers_.find(peer);
  return known == peers_.end() ? fmt::format("peer {}", peer) : known->second;
}

}  // namespace net
