#include "fuzz/machine/messages.h"

#include <fmt/format.h>

#include "net/exchange/chunk.h"
#include "net/frozen.h"

namespace net {
namespace {

PeerId some_peer(Choices& choices) {
  return choices.one_in(16) ? PeerId(choices.below(kMembersMax)) : PeerId(choices.below(5));
}

std::vector<FragmentState> some_states(Choices& choices) {
  std::vector<FragmentState> states;
  const uint64_t count = choices.one_in(16) ? choices.below(4) : kFuzzFragments;
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t version = choices.one_in(8) ? kNoVersion : choices.number();
    states.push_back({.version = version, .digest = some_digest(choices)});
  }
  return states;
}

std::vector<PeerId> some_peers(Choices& choices) {
  std::vector<PeerId> peers(choices.below(5));
  for (PeerId& peer : peers) peer = some_peer(choices);
  return peers;
}

std::string some_text(Choices& choices) {
  return choices.one_in(4) ? kDoneReason : fmt::format("text {}", choices.below(4));
}

Endpoint some_address(Choices& choices) {
  return choices.one_in(8) ? Endpoint{} : data_address(some_peer(choices));
}

Open some_open(Choices& choices) {
  Open open{.step = choices.number()};
  const bool has_weights = !choices.one_in(8);
  for (PeerId peer = 0; peer < kMembersMax && !choices.one_in(5); ++peer) {
    if (choices.one_in(3)) continue;
    open.contributors.push_back({.peer = peer,
                                 .weight_tokens = has_weights ? 1 + int64_t(choices.below(200)) : 0,
                                 .data = some_address(choices),
                                 .node_key = choices.below(8)});
  }
  if (open.contributors.empty()) return open;
  const uint64_t count = choices.one_in(8) ? choices.below(8) : uint64_t(kFuzzChunks);
  for (uint64_t chunk = 0; chunk < count; ++chunk)
    open.owners.push_back(uint8_t(choices.below(open.contributors.size())));
  give_plan(open, choices);
  return open;
}

std::vector<std::byte> some_bytes(Choices& choices) {
  std::vector<std::byte> bytes(choices.one_in(4) ? choices.below(20) : 8);
  for (std::byte& byte : bytes) byte = std::byte(choices.below(256));
  return bytes;
}

Bytes some_chunk(Choices& choices) {
  switch (choices.below(6)) {
    case 0:
      return frozen(some_bytes(choices));
    case 1:
      return result_payload({.contributors = choices.below(16),
                             .judged_out = choices.below(16),
                             .weight_tokens = int64_t(choices.number())},
                            some_bytes(choices));
    case 2:
      return state_payload(choices.number(), some_bytes(choices));
    case 3:
      return past_payload({.step = choices.number(), .is_refused = true, .result = {}});
    case 4:
      return digests_payload(some_bytes(choices));
    default:
      return std::make_shared<const std::vector<std::byte>>(some_bytes(choices));
  }
}

std::vector<Electorate> some_electorates(Choices& choices) {
  std::vector<Electorate> all(choices.below(3));
  for (Electorate& one : all) {
    for (uint64_t voter = 1; voter < 9; ++voter) {
      if (choices.one_in(2)) one.voters.push_back(voter);
    }
    one.tie_breaker = choices.below(9);
  }
  return all;
}

std::vector<HeldRound> some_held(Choices& choices) {
  std::vector<HeldRound> all;
  while (all.size() < 4 && !choices.one_in(3))
    all.push_back({.fragment = uint32_t(choices.below(kFuzzFragments + 1)),
                   .term = uint32_t(choices.below(4)),
                   .attempt = uint32_t(choices.below(4)),
                   .round = choices.below(8),
                   .results = some_digest(choices),
                   .step = choices.below(99)});
  return all;
}

Hello some_hello(Choices& choices) {
  Hello hello{.protocol = choices.one_in(32) ? uint32_t(choices.number()) : kProtocolVersion,
              .node_key = choices.below(12)};
  hello.node_name = fmt::format("node-{}", hello.node_key);
  hello.config = choices.one_in(32) ? some_digest(choices) : digest_of(0);
  hello.listen = some_address(choices);
  hello.step = choices.number();
  hello.samples = choices.number() % kSamplesMax;
  hello.states = some_states(choices);
  hello.last_term = uint32_t(choices.number());
  hello.last_epoch = choices.number();
  hello.last_member_count = uint32_t(choices.number());
  hello.last_electorates = some_electorates(choices);
  hello.remembers = choices.one_in(2);
  hello.coordinator = choices.below(4);
  hello.is_home = choices.one_in(2);
  hello.was_reachable = choices.one_in(2);
  hello.held = some_held(choices);
  return hello;
}

CatchUp some_catch_up(Choices& choices) {
  CatchUp catch_up{.states = some_states(choices), .donors = {}, .step = choices.number()};
  for (const PeerId peer : some_peers(choices))
    catch_up.donors.push_back({.peer = peer, .data = some_address(choices)});
  return catch_up;
}

Visits some_visits(Choices& choices) {
  Visits visits;
  for (const PeerId peer : some_peers(choices)) {
    visits.peers.push_back(
        {.peer = peer, .data = some_address(choices), .node_key = choices.below(8)});
  }
  return visits;
}

Membership some_membership(Choices& choices) {
  Membership membership{.members = {}, .electorates = some_electorates(choices)};
  for (const PeerId peer : some_peers(choices))
    membership.members.push_back({.peer = peer,
                                  .node_key = choices.below(8),
                                  .data = some_address(choices),
                                  .is_reachable = choices.one_in(2)});
  return membership;
}

Reown some_reown(Choices& choices) {
  Reown reown{.excluded = some_peers(choices), .moves = {}};
  for (uint32_t chunk = 0; chunk < kFuzzChunks + 1; ++chunk) {
    if (choices.one_in(2)) reown.moves.push_back({chunk, uint8_t(choices.below(5))});
  }
  return reown;
}

Heartbeat some_heartbeat(Choices& choices) {
  return {.step = choices.number(),
          .loss = float(choices.below(9)),
          .progress = choices.number(),
          .owes_contribution = choices.number(),
          .owes_result = choices.number(),
          .silent = choices.number(),
          .unreachable = choices.number(),
          .lacks = uint32_t(choices.number())};
}

WantKind some_kind(Choices& choices) {
  return WantKind(1 + choices.below(7));
}

}  // namespace

void give_plan(Open& open, Choices& choices) {
  const size_t count = open.contributors.size();
  open.plan = PlanKind(choices.below(3));
  open.places.clear();
  if (open.plan == PlanKind::kDirect) return;
  const uint64_t shift = choices.below(count);
  uint8_t regions = 0;
  for (size_t index = 0; index < count; ++index) {
    if (open.plan == PlanKind::kRing) {
      open.places.push_back(uint8_t((index + shift) % count));
    } else {
      open.places.push_back(uint8_t(choices.below(uint64_t(regions) + 1)));
      regions = std::max<uint8_t>(regions, uint8_t(open.places.back() + 1));
    }
  }
}

base::Digest digest_of(uint64_t number) {
  base::Digest digest;
  digest.bytes[0] = uint8_t(1 + number);
  return digest;
}

Endpoint data_address(PeerId peer) {
  return {fmt::format("10.0.0.{}", peer), 4000};
}

base::Digest some_digest(Choices& choices) {
  return choices.one_in(8) ? base::Digest{} : digest_of(choices.below(3));
}

Authority some_authority(Choices& choices) {
  const bool is_wild = choices.one_in(16);
  const auto number = [&](uint64_t limit) {
    return is_wild ? choices.number() : choices.below(limit);
  };
  return {.term = uint32_t(number(4)),
          .epoch = number(8),
          .round = number(8),
          .attempt = uint32_t(number(4)),
          .fragment = uint32_t(number(kFuzzFragments)),
          .chunk = uint32_t(number(kFuzzChunks))};
}

Bytes some_payload(MessageType type, Choices& choices) {
  switch (type) {
    case MessageType::kHello:
      return encode(some_hello(choices));
    case MessageType::kSynced:
      return encode(Synced{some_states(choices)});
    case MessageType::kHeartbeat:
      return encode(some_heartbeat(choices));
    case MessageType::kReady:
      return encode(Ready{.weight_tokens = int64_t(choices.below(200)) - 20,
                          .step = choices.number(),
                          .contribution = some_digest(choices)});
    case MessageType::kDone:
      return encode(Done{some_digest(choices)});
    case MessageType::kApplied:
      return encode(Applied{some_digest(choices)});
    case MessageType::kLeave:
      return encode(Leave{some_text(choices)});
    case MessageType::kNeedSamples:
      return encode(NeedSamples{1 + choices.number() % kSamplesAskedMax});
    case MessageType::kWelcome:
      return encode(Welcome{.peer = some_peer(choices),
                            .heartbeat_interval_ms = 1 + uint32_t(choices.number() % 100000),
                            .dead_after_ms = 1 + uint32_t(choices.number() % 100000)});
    case MessageType::kReject:
      return encode(Reject{.reason = some_text(choices), .restart_makes_sense = choices.one_in(2)});
    case MessageType::kCatchUp:
      return encode(some_catch_up(choices));
    case MessageType::kStart:
      return encode(Start{.step = choices.number(), .samples_void_below = choices.below(9)});
    case MessageType::kMembership:
      return encode(some_membership(choices));
    case MessageType::kOpen:
      return encode(some_open(choices));
    case MessageType::kReown:
      return encode(some_reown(choices));
    case MessageType::kCommit:
      return encode(Commit{.results = some_digest(choices), .step = choices.number()});
    case MessageType::kNotice:
      return encode(Notice{.contributes = choices.one_in(2), .reason = some_text(choices)});
    case MessageType::kSamples:
      return encode(
          Samples{.first = choices.number() % (kSamplesMax / 2), .count = choices.below(99)});
    case MessageType::kKeys:
      return encode(Keys{});
    case MessageType::kDataHello:
      return encode(DataHello{some_peer(choices)});
    case MessageType::kOffer:
      return encode(Offer{some_peer(choices), uint32_t(choices.below(1 << 20))});
    case MessageType::kInvite:
      return encode(Invite{1 + uint32_t(choices.below(kOfferedLinksMax))});
    case MessageType::kVisits:
      return encode(some_visits(choices));
    case MessageType::kWant:
      return encode(Want{some_kind(choices)});
    case MessageType::kGone:
      return encode(Gone{some_kind(choices)});
    case MessageType::kChunk:
      return some_chunk(choices);
    case MessageType::kDialBack:
      return encode(DialBack{choices.number()});
    case MessageType::kDialBackReply:
      return encode(DialBackReply{choices.number()});
    case MessageType::kStandBy:
      return encode(StandBy{choices.below(8)});
    case MessageType::kRedirect:
      return encode(Redirect{.coordinator = some_address(choices), .node_key = choices.below(8)});
    case MessageType::kMeasured: {
      Measured measured;
      for (PeerId peer = 0; peer < kMembersMax && !choices.one_in(4); ++peer)
        measured.ways.push_back({peer, uint32_t(choices.number()), choices.number() >> 16});
      return encode(measured);
    }
    case MessageType::kAudited:
      return encode(Audited{.published = some_digest(choices),
                            .remade = some_digest(choices),
                            .withheld = choices.below(16)});
    case MessageType::kAudit:
    case MessageType::kAbort:
    case MessageType::kHeartbeatReply:
      break;
  }
  return std::make_shared<const std::vector<std::byte>>();
}

Bytes mangled(const Bytes& payload, Choices& choices) {
  std::vector<std::byte> bytes = *payload;
  const size_t place = bytes.empty() ? 0 : choices.below(256) * bytes.size() / 256;
  switch (choices.below(3)) {
    case 0:
      bytes.resize(place);
      break;
    case 1:
      bytes.insert(bytes.begin() + ptrdiff_t(place), std::byte(choices.below(256)));
      break;
    default:
      if (!bytes.empty()) bytes[place] = std::byte(choices.below(256));
  }
  return std::make_shared<const std::vector<std::byte>>(std::move(bytes));
}

}  // namespace net
