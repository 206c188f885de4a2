// The payloads as bytes. The fields of every struct are described once, in the order in which they
// travel (docs/formats/wire.md), together with what must hold for them; reading and writing are two
// interpretations of that. So we cannot send what we would not accept.
#include "net/message.h"

#include <algorithm>

#include "net/wire/wire.h"

namespace net {
namespace {

// Together they keep the largest messages, Open and CatchUp, below kControlBytesMax.
constexpr int64_t kFragmentsMax = 1024;
constexpr int64_t kChunksMax = 40 * 1024;
constexpr int64_t kNameBytesMax = 64;
constexpr int64_t kHostBytesMax = 253;
constexpr int64_t kReasonBytesMax = 1024;
constexpr int64_t kConfigBytesMax = 32 * 1024;
// The weights of all members can be added up in an int64_t.
constexpr int64_t kWeightTokensMax = int64_t{1} << 56;

constexpr uint8_t kOwnerStays = 255;

template <class Wire>
void describe_peer(Wire& wire, PeerId& peer) {
  wire.number(peer);
  wire.require(peer < kMembersMax, "a peer id that nobody can have");
}

template <class Wire>
void describe_weight(Wire& wire, int64_t& weight_tokens, int64_t smallest) {
  wire.number(weight_tokens);
  wire.require(weight_tokens >= smallest && weight_tokens <= kWeightTokensMax,
               "a weight out of range");
}

// So many that are handed out.
template <class Wire>
void describe_samples(Wire& wire, uint64_t& samples) {
  wire.number(samples);
  wire.require(samples <= kSamplesMax, "more samples than a run can have");
}

template <class Wire>
void describe_kind(Wire& wire, WantKind& kind) {
  wire.number(kind);
  wire.require(kind >= WantKind::kContribution && kind <= WantKind::kSubtotal,
               "an unknown kind of chunk");
}

template <class Wire>
void describe(Wire& wire, Endpoint& endpoint) {
  wire.text(endpoint.host, kHostBytesMax);
  wire.number(endpoint.port);
  const bool is_address = endpoint.host.empty() || parse_endpoint(endpoint.text()).ok();
  wire.require(is_address, "an address that is none");
}

template <class Wire>
void describe(Wire& wire, FragmentState& state) {
  wire.number(state.version);
  wire.digest(state.digest);
}

template <class Wire>
void describe(Wire& wire, Donor& donor) {
  describe_peer(wire, donor.peer);
  describe(wire, donor.data);
  wire.number(donor.node_key);
}

template <class Wire>
void describe(Wire& wire, Contributor& contributor) {
  describe_peer(wire, contributor.peer);
  describe_weight(wire, contributor.weight_tokens, 0);
  describe(wire, contributor.data);
  wire.number(contributor.node_key);
  wire.digest(contributor.contribution);
}

template <class Wire>
void describe_flag(Wire& wire, bool& flag) {
  auto number = uint8_t(flag);
  wire.number(number);
  wire.require(number <= 1, "a flag that is neither 0 nor 1");
  flag = number == 1;
}

template <class Wire>
void describe(Wire& wire, Seat& seat) {
  describe_peer(wire, seat.peer);
  wire.number(seat.node_key);
  describe(wire, seat.data);
  describe_flag(wire, seat.is_reachable);
}

template <class Wire>
void describe(Wire& wire, Electorate& electorate) {
  wire.list(electorate.voters, kMembersMax, [](auto& list, uint64_t& key) { list.number(key); });
  wire.number(electorate.tie_breaker);
}

template <class Wire>
void describe(Wire& wire, HeldRound& held) {
  wire.number(held.fragment);
  wire.number(held.term);
  wire.number(held.attempt);
  wire.number(held.round);
  wire.digest(held.results);
  wire.number(held.step);
}

template <class Wire>
void describe(Wire& wire, NodeId& id) {
  for (uint8_t& byte : id.bytes) wire.number(byte);
}

// For lists. Defined below what an entry can be, because names in it are looked up here.
constexpr auto kDescribeEntry = [](auto& wire, auto& entry) { describe(wire, entry); };
constexpr auto kDescribePeer = [](auto& wire, PeerId& peer) { describe_peer(wire, peer); };

template <class Wire>
void describe(Wire& wire, Hello& hello) {
  wire.number(hello.protocol);
  wire.number(hello.node_key);
  wire.text(hello.node_name, kNameBytesMax);
  wire.digest(hello.config);
  describe(wire, hello.listen);
  wire.number(hello.step);
  describe_samples(wire, hello.samples);
  wire.list(hello.states, kFragmentsMax, kDescribeEntry);
  wire.number(hello.last_term);
  wire.number(hello.last_epoch);
  wire.number(hello.last_member_count);
  wire.list(hello.last_electorates, kElectoratesMax, kDescribeEntry);
  describe_flag(wire, hello.remembers);
  wire.number(hello.coordinator);
  describe_flag(wire, hello.is_home);
  describe_flag(wire, hello.was_reachable);
  wire.list(hello.held, kHeldRoundsMax, kDescribeEntry);
}

template <class Wire>
void describe(Wire& wire, Synced& synced) {
  wire.list(synced.states, kFragmentsMax, kDescribeEntry);
}

template <class Wire>
void describe(Wire& wire, Heartbeat& heartbeat) {
  wire.number(heartbeat.step);
  wire.real(heartbeat.loss);
  wire.number(heartbeat.progress);
  wire.number(heartbeat.owes_contribution);
  wire.number(heartbeat.owes_result);
  wire.number(heartbeat.silent);
  wire.number(heartbeat.unreachable);
  wire.number(heartbeat.lacks);
}

template <class Wire>
void describe(Wire& wire, Ready& ready) {
  describe_weight(wire, ready.weight_tokens, -kWeightTokensMax);
  wire.number(ready.step);
  wire.digest(ready.contribution);
}

template <class Wire>
void describe(Wire& wire, Done& done) {
  wire.digest(done.results);
}

template <class Wire>
void describe(Wire& wire, Applied& applied) {
  wire.digest(applied.digest);
}

template <class Wire>
void describe(Wire& wire, Audited& audited) {
  wire.digest(audited.published);
  wire.digest(audited.remade);
  wire.number(audited.withheld);
}

template <class Wire>
void describe(Wire& wire, Measured& measured) {
  constexpr uint64_t kBytesPerSecondMax = uint64_t{1} << 48;
  wire.list(measured.ways, kMembersMax, [](auto& list, MeasuredWay& way) {
    describe_peer(list, way.peer);
    list.number(way.round_trip_us);
    list.number(way.bytes_per_second);
    list.require(way.bytes_per_second <= kBytesPerSecondMax, "a rate that no line has");
  });
}

template <class Wire>
void describe(Wire&, AuditOrder&) {}

template <class Wire>
void describe(Wire& wire, Leave& leave) {
  wire.text(leave.reason, kReasonBytesMax);
}

template <class Wire>
void describe(Wire& wire, NeedSamples& need) {
  wire.number(need.count);
  wire.require(need.count >= 1 && need.count <= kSamplesAskedMax, "such a number of samples");
}

template <class Wire>
void describe(Wire& wire, Welcome& welcome) {
  describe_peer(wire, welcome.peer);
  wire.number(welcome.heartbeat_interval_ms);
  wire.number(welcome.dead_after_ms);
  wire.number(welcome.coordinator);
  wire.require(welcome.heartbeat_interval_ms > 0 && welcome.dead_after_ms > 0, "a deadline of 0");
}

template <class Wire>
void describe(Wire& wire, StandBy& stand_by) {
  wire.number(stand_by.coordinator);
}

template <class Wire>
void describe(Wire& wire, Redirect& redirect) {
  describe(wire, redirect.coordinator);
  wire.number(redirect.node_key);
}

template <class Wire>
void describe(Wire& wire, Reject& reject) {
  wire.text(reject.reason, kReasonBytesMax);
  describe_flag(wire, reject.restart_makes_sense);
  wire.text(reject.shared_config, kConfigBytesMax);
}

template <class Wire>
void describe(Wire& wire, Notice& notice) {
  describe_flag(wire, notice.contributes);
  wire.text(notice.reason, kReasonBytesMax);
}

template <class Wire>
void describe(Wire& wire, CatchUp& catch_up) {
  wire.list(catch_up.states, kFragmentsMax, kDescribeEntry);
  wire.list(catch_up.donors, kMembersMax, kDescribeEntry);
  wire.number(catch_up.step);
}

template <class Wire>
void describe(Wire& wire, Start& start) {
  wire.number(start.step);
  describe_samples(wire, start.samples_void_below);
}

template <class Wire>
void describe(Wire& wire, Keys& keys) {
  wire.list(keys.allowed, kAllowedKeysMax, kDescribeEntry);
}

template <class Wire>
void describe(Wire& wire, Samples& samples) {
  describe_samples(wire, samples.first);
  wire.number(samples.count);
  wire.require(samples.count <= kSamplesAskedMax && samples.count <= kSamplesMax - samples.first,
               "such a number of samples");
}

template <class Wire>
void describe(Wire& wire, Membership& membership) {
  wire.list(membership.members, kMembersMax, kDescribeEntry);
  wire.list(membership.electorates, kElectoratesMax, kDescribeEntry);
}

// Numbered as they first occur, so that nothing can be written in two ways.
bool are_regions(std::span<const uint8_t> places) {
  int64_t count = 0;
  for (const uint8_t place : places) {
    if (place > count) return false;
    count = std::max<int64_t>(count, place + 1);
  }
  return true;
}

bool is_order(std::span<const uint8_t> places) {
  std::vector<uint8_t> sorted(places.begin(), places.end());
  std::ranges::sort(sorted);
  for (size_t place = 0; place < sorted.size(); ++place) {
    if (sorted[place] != place) return false;
  }
  return true;
}

template <class Wire>
void describe_places(Wire& wire, Open& open) {
  wire.number(open.plan);
  wire.require(open.plan <= PlanKind::kRing, "an unknown plan");
  wire.list(open.places, kMembersMax, [](auto& list, uint8_t& place) { list.number(place); });
  const bool is_direct = open.plan == PlanKind::kDirect;
  wire.require(open.places.size() == (is_direct ? 0 : open.contributors.size()),
               "places of others than the contributors");
  wire.require(open.plan != PlanKind::kTwoLevel || are_regions(open.places),
               "regions that are not in order");
  wire.require(open.plan != PlanKind::kRing || is_order(open.places), "a ring that is none");
}

template <class Wire>
void describe(Wire& wire, Open& open) {
  const auto is_after = [](const Contributor& a, const Contributor& b) { return a.peer >= b.peer; };
  const auto has_weight = [](const Contributor& one) { return one.weight_tokens > 0; };
  wire.list(open.contributors, kMembersMax, kDescribeEntry);
  wire.require(std::ranges::adjacent_find(open.contributors, is_after) == open.contributors.end(),
               "contributors that are not in the order of their peer ids");
  wire.require(std::ranges::all_of(open.contributors, has_weight) ||
                   std::ranges::none_of(open.contributors, has_weight),
               "contributors with and without a weight");
  wire.list(open.owners, kChunksMax, [&](auto&, uint8_t& owner) {
    wire.number(owner);
    wire.require(owner < open.contributors.size(), "an owner that does not contribute");
  });
  wire.number(open.step);
  describe_places(wire, open);
  wire.number(open.estimated_ms);
}

// Moves travel as one owner for each chunk up to the last one that moves: however many members fall
// out at once, the message is never larger than an Open.
void describe(WireWriter& wire, Reown& reown) {
  wire.list(reown.excluded, kMembersMax, kDescribePeer);
  std::vector<uint8_t> owners;
  for (const Reown::Move& move : reown.moves) {
    wire.require(move.chunk < kChunksMax && move.owner < kMembersMax, "such a move");
    if (move.chunk >= owners.size()) owners.resize(move.chunk + 1, kOwnerStays);
    owners[move.chunk] = move.owner;
  }
  wire.list(owners, kChunksMax, [](auto& list, uint8_t& owner) { list.number(owner); });
}

void describe(WireReader& wire, Reown& reown) {
  wire.list(reown.excluded, kMembersMax, kDescribePeer);
  std::vector<uint8_t> owners;
  wire.list(owners, kChunksMax, [](auto& list, uint8_t& owner) {
    list.number(owner);
    list.require(owner < kMembersMax || owner == kOwnerStays, "an owner that nobody can be");
  });
  wire.require(owners.empty() || owners.back() != kOwnerStays, "a last chunk that does not move");
  for (size_t chunk = 0; chunk < owners.size(); ++chunk) {
    if (owners[chunk] == kOwnerStays) continue;
    reown.moves.push_back({.chunk = uint32_t(chunk), .owner = owners[chunk]});
  }
}

template <class Wire>
void describe(Wire& wire, Commit& commit) {
  wire.digest(commit.results);
  wire.number(commit.step);
}

template <class Wire>
void describe(Wire& wire, DataHello& hello) {
  describe_peer(wire, hello.peer);
}

template <class Wire>
void describe(Wire& wire, Offer& offer) {
  describe_peer(wire, offer.peer);
  wire.number(offer.round_trip_us);
}

template <class Wire>
void describe(Wire& wire, Invite& invite) {
  wire.number(invite.links);
  wire.require(invite.links >= 1 && invite.links <= kOfferedLinksMax, "so many links");
}

template <class Wire>
void describe(Wire& wire, Visits& visits) {
  wire.list(visits.peers, kMembersMax, [](auto& list, Donor& donor) { describe(list, donor); });
}

template <class Wire>
void describe(Wire& wire, Want& want) {
  describe_kind(wire, want.kind);
}

template <class Wire>
void describe(Wire& wire, Gone& gone) {
  describe_kind(wire, gone.kind);
}

template <class Wire>
void describe(Wire& wire, DialBack& dial_back) {
  wire.number(dial_back.nonce);
}

template <class Wire>
void describe(Wire& wire, DialBackReply& reply) {
  wire.number(reply.proof);
}

}  // namespace

const char* name_of(PlanKind kind) {
  switch (kind) {
    case PlanKind::kDirect:
      return "direct";
    case PlanKind::kTwoLevel:
      return "two-level";
    case PlanKind::kRing:
      return "ring";
  }
  return "?";
}

uint64_t dial_back_proof(uint64_t node_key, uint64_t nonce) {
  WireWriter wire;
  wire.number(node_key);
  wire.number(nonce);
  const base::Digest digest = base::sha256(wire.finish());
  uint64_t proof = 0;
  WireReader(std::as_bytes(std::span(digest.bytes)).first(sizeof(proof))).number(proof);
  return proof;
}

template <class T>
static constexpr const char* kNameOf = nullptr;

template <class T>
Bytes encode(const T& payload) {
  T copy = payload;  // A description takes what it could also fill.
  WireWriter wire;
  describe(wire, copy);
  return std::make_shared<const std::vector<std::byte>>(wire.finish());
}

template <class T>
base::Result<T> decode(std::span<const std::byte> bytes) {
  T payload;
  WireReader wire(bytes);
  describe(wire, payload);
  if (const auto read = wire.finish(); !read.ok()) {
    return base::Failure{fmt::format("{}: {}", kNameOf<T>, read.reason())};
  }
  return payload;
}

#define PAYLOAD(T)                         \
  template <>                              \
  constexpr const char* kNameOf<T> = #T;   \
  template Bytes encode(const T& payload); \
  template base::Result<T> decode(std::span<const std::byte> bytes)

PAYLOAD(Hello);
PAYLOAD(Synced);
PAYLOAD(Heartbeat);
PAYLOAD(Ready);
PAYLOAD(Done);
PAYLOAD(Applied);
PAYLOAD(Audited);
PAYLOAD(Measured);
PAYLOAD(AuditOrder);
PAYLOAD(Leave);
PAYLOAD(NeedSamples);
PAYLOAD(Welcome);
PAYLOAD(Redirect);
PAYLOAD(StandBy);
PAYLOAD(Reject);
PAYLOAD(CatchUp);
PAYLOAD(Start);
PAYLOAD(Samples);
PAYLOAD(Keys);
PAYLOAD(Membership);
PAYLOAD(Open);
PAYLOAD(Reown);
PAYLOAD(Commit);
PAYLOAD(DataHello);
PAYLOAD(Offer);
PAYLOAD(Invite);
PAYLOAD(Visits);
PAYLOAD(Want);
PAYLOAD(Gone);
PAYLOAD(Notice);
PAYLOAD(DialBack);
PAYLOAD(DialBackReply);

#undef PAYLOAD

}  // namespace net
