// One or more encoded examples of every payload, each with a function that decodes bytes of its
// kind and encodes the result again. Tests break them in every way they can think of; the fuzzer
// starts from them.
#pragma once

#include <cstddef>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "base/hash.h"
#include "net/message.h"

namespace net {

using Recode = base::Result<Bytes> (*)(std::span<const std::byte>);

struct SamplePayload {
  std::string name;
  Bytes bytes;
  Recode recode;
};

template <class T>
base::Result<Bytes> recode(std::span<const std::byte> bytes) {
  const auto payload = decode<T>(bytes);
  if (!payload.ok()) return base::Failure{payload.reason()};
  return encode(*payload);
}

template <class T>
SamplePayload sample(const std::string& name, const T& payload) {
  return {name, encode(payload), recode<T>};
}

inline base::Digest sample_digest(uint8_t first) {
  base::Digest digest;
  std::iota(digest.bytes.begin(), digest.bytes.end(), first);
  return digest;
}

inline Hello sample_hello() {
  return {.protocol = kProtocolVersion,
          .node_key = 0x0123456789abcdef,
          .node_name = "n\u00f8de \u5317\u4eac \U0001F600",
          .config = sample_digest(1),
          .listen = {"192.0.2.7", 7000},
          .step = 1ull << 60,
          .samples = 1ull << 40,
          .states = {{.version = 3, .digest = sample_digest(9)}, {.version = 4}},
          .last_term = 7,
          .last_epoch = 1ull << 40,
          .last_member_count = 14,
          .last_electorates = {{.voters = {5, ~0ull}, .tie_breaker = 5}, {.voters = {5}}},
          .remembers = false,
          .coordinator = 99,
          .is_home = false,
          .was_reachable = false,
          .held = {{.fragment = 1,
                    .term = 7,
                    .attempt = 2,
                    .round = 5,
                    .results = sample_digest(3),
                    .step = 500}}};
}

inline Open sample_open() {
  return {.contributors = {{.peer = 0,
                            .weight_tokens = 4096,
                            .data = {"a.example", 1},
                            .contribution = sample_digest(8)},
                           {.peer = 5, .weight_tokens = 1, .data = {"2001:db8::1", 65535}}},
          .owners = {0, 1, 1, 0},
          .step = 500,
          .plan = PlanKind::kRing,
          .places = {1, 0},
          .estimated_ms = 1500};
}

// As large as a message can get.
inline Open largest_open() {
  Open open{.owners = std::vector<uint8_t>(40 * 1024, 63), .step = 1};
  for (PeerId peer = 0; peer < kMembersMax; ++peer) {
    const Endpoint data{std::string(253, 'a'), 65535};
    open.contributors.push_back({.peer = peer, .weight_tokens = int64_t{1} << 56, .data = data});
    open.places.push_back(uint8_t(peer));
  }
  open.plan = PlanKind::kRing;
  return open;
}
inline CatchUp largest_catch_up() {
  CatchUp catch_up{.states = std::vector<FragmentState>(1024)};
  for (PeerId peer = 0; peer < kMembersMax; ++peer) {
    catch_up.donors.push_back({.peer = peer, .data = {std::string(253, 'a'), 65535}});
  }
  return catch_up;
}

inline Hello largest_hello() {
  Hello hello = sample_hello();
  hello.listen.host = std::string(253, 'a');
  hello.states.resize(1024);
  hello.held.resize(size_t(kHeldRoundsMax));
  hello.last_electorates.assign(size_t(kElectoratesMax), {});
  for (Electorate& one : hello.last_electorates) one.voters.resize(size_t(kMembersMax));
  return hello;
}

inline std::vector<SamplePayload> sample_payloads() {
  const std::vector<FragmentState> states = {{.version = 3, .digest = sample_digest(9)}, {}};
  return {
      sample("Hello", sample_hello()),
      sample("Hello without address and states", Hello{.node_name = ""}),
      sample("Synced", Synced{.states = states}),
      sample("Heartbeat", Heartbeat{.step = 7,
                                    .loss = 2.5f,
                                    .progress = 9,
                                    .owes_contribution = ~0ull,
                                    .owes_result = 5,
                                    .silent = 1,
                                    .unreachable = 1ull << 63,
                                    .lacks = 12}),
      sample("Ready",
             Ready{.weight_tokens = 1 << 20, .step = 500, .contribution = sample_digest(5)}),
      sample("Ready withdrawn", Ready{.weight_tokens = -1, .step = 500}),
      sample("Done", Done{.results = sample_digest(2)}),
      sample("Applied", Applied{.digest = sample_digest(3)}),
      sample("Audited",
             Audited{.published = sample_digest(6), .remade = sample_digest(7), .withheld = 5}),
      sample("Measured",
             Measured{.ways = {{.peer = 3, .round_trip_us = 40'000, .bytes_per_second = 1 << 20}}}),
      sample("Measured nothing", Measured{}),
      sample("AuditOrder", AuditOrder{}),
      sample("Leave", Leave{.reason = "done"}),
      sample("NeedSamples", NeedSamples{.count = 4000}),
      sample("Welcome", Welcome{.peer = 63,
                                .heartbeat_interval_ms = 1000,
                                .dead_after_ms = 15000,
                                .coordinator = 1ull << 63}),
      sample("StandBy", StandBy{.coordinator = 1ull << 63}),
      sample("Redirect", Redirect{.coordinator = {"a.example", 7000}, .node_key = 12}),
      sample("Reject", Reject{.reason = "another configuration"}),
      sample("Reject for now", Reject{.reason = "no state", .restart_makes_sense = true}),
      sample("Reject with a config", Reject{.reason = "no", .shared_config = "{\"seed\":1}"}),
      sample("Notice", Notice{.contributes = false, .reason = "it does not deliver"}),
      sample("DialBack", DialBack{.nonce = 77}),
      sample("DialBackReply", DialBackReply{.proof = ~0ull}),
      sample("CatchUp", CatchUp{.states = states,
                                .donors = {{.peer = 1, .data = {"::1", 7000}}},
                                .step = 1ull << 50}),
      sample("Start", Start{.step = 12, .samples_void_below = 20}),
      sample("Samples", Samples{.first = 3000, .count = 4000}),
      sample("Samples of others", Samples{.first = 7000}),
      sample("Membership",
             Membership{
                 .members =
                     {{.peer = 0, .node_key = 3, .data = {"a.example", 1}},
                      {.peer = 63, .node_key = ~0ull, .data = {"::1", 7000}, .is_reachable = true}},
                 .electorates = {{.voters = {3}}}}),
      sample("Keys", Keys{.allowed = {NodeId{{1, 2, 3}}, NodeId{{255}}}}),
      sample("Keys of nobody", Keys{}),
      sample("Open", sample_open()),
      sample("Open without chunks", Open{}),
      sample("Reown", Reown{.excluded = {5},
                            .moves = {{.chunk = 1, .owner = 0}, {.chunk = 300, .owner = 2}}}),
      sample("Reown without moves", Reown{.excluded = {5}}),
      sample("Commit", Commit{.results = sample_digest(4), .step = 500}),
      sample("DataHello", DataHello{.peer = 2}),
      sample("Offer", Offer{.peer = 63, .round_trip_us = 200'000}),
      sample("Invite", Invite{.links = kOfferedLinksMax}),
      sample("Visits", Visits{.peers = {{.peer = 1, .data = {"::1", 7000}, .node_key = 9}}}),
      sample("Visits to nobody", Visits{}),
      sample("Want", Want{.kind = WantKind::kState}),
      sample("Want of a proof", Want{.kind = WantKind::kProof}),
      sample("Gone", Gone{.kind = WantKind::kResult}),
  };
}

// Every kind of payload under a small number.
inline std::vector<Recode> all_recodes() {
  std::vector<Recode> recodes;
  for (const SamplePayload& one : sample_payloads()) recodes.push_back(one.recode);
  return recodes;
}

}  // namespace net
