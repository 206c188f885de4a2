// A member alone: the test plays the coordinator, the other members and the trainer, word by word.
// What a scenario with real members shows better is in cluster_test.cpp.
#pragma once

#include <algorithm>

#include "net/exchange/chunk.h"
#include "net/frozen.h"
#include "net/member.h"
#include "net/quiet_log.h"
#include "net/recording_outbox.h"
#include "net/sample_digest.h"
#include "net/turn.h"
#include "support/catch.h"

namespace net {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr uint32_t kTerm = 3;

inline std::vector<std::byte> one_byte(int value) {
  return {std::byte(value)};
}

// One fragment, four chunks of one byte, which are summed; eight blocks of one byte.
class TinyStore : public FragmentStore {
 public:
  int64_t fragment_count() const override { return 1; }
  int64_t chunk_count(int64_t) const override { return 4; }
  Bytes contribution(int64_t, int64_t chunk) override { return ours().payloads[size_t(chunk)]; }
  base::Digest contribution_root(int64_t) const override { return ours().root; }
  static SealedContribution ours() {
    return sealed({one_byte(10), one_byte(11), one_byte(12), one_byte(13)});
  }
  base::Result<void> check_contribution(int64_t, int64_t,
                                        std::span<const std::byte> encoded) const override {
    if (encoded.size() != 1) return base::Failure{"not one byte"};
    return {};
  }
  base::Result<void> check_result(int64_t fragment, int64_t chunk,
                                  std::span<const std::byte> encoded) const override {
    return check_contribution(fragment, chunk, encoded);
  }
  Mean reduce(int64_t, int64_t, std::span<const Part> parts) override {
    int sum = 0;
    for (const Part& part : parts) sum += int(part.encoded()[0]);
    last_parts.assign(parts.begin(), parts.end());
    return {one_byte(sum), left_out};
  }
  std::optional<Mean> repeat(int64_t fragment, uint64_t, int64_t chunk,
                             std::span<const Part> parts) override {
    return reduce(fragment, chunk, parts);
  }
  int64_t block_count(int64_t) const override { return 8; }
  std::optional<StateBlock> read_block(int64_t, int64_t block) override {
    if (is_changing) return std::nullopt;
    return StateBlock{.version = version, .bytes = one_byte(100 + int(block))};
  }
  base::Result<void> write_block(int64_t, int64_t block,
                                 std::span<const std::byte> bytes) override {
    if (bytes.size() != 1) return base::Failure{"not one byte"};
    written[block] = int(bytes[0]);
    return {};
  }

  std::vector<Part> last_parts;
  std::vector<PeerId> left_out;  // Of every mean.
  std::map<int64_t, int> written;
  uint64_t version = 0;
  bool is_changing = false;
};

// What members 0 and 2 contribute.
inline SealedContribution contribution_of(PeerId peer) {
  if (peer == 0) return sealed({one_byte(3), one_byte(1), one_byte(4), one_byte(6)});
  return sealed({one_byte(5), one_byte(2), one_byte(7), one_byte(8)});
}

class Stage {
 public:
  explicit Stage(MemberOptions options = default_options())
      : member(Member::create(options, store, {{0, digest_of(1)}}, 0,
                              [this](MemberEvent event) { events.push_back(std::move(event)); })) {
    quiet_log();
    member->on_start(now, out);
  }

  static MemberOptions default_options() {
    MemberOptions options;
    options.run_name = "run";
    options.node_name = "node";
    options.coordinator = {"meeting.example.org", 4000};
    options.wants_in_flight_max = 2;
    return options;
  }

  // The coordinator.
  void tell(MessageType type, Bytes payload, Authority authority = {}) {
    receive(coordinator(), type, std::move(payload), authority);
  }
  void welcome(PeerId peer = 1) {
    member->on_link_open(coordinator(), false, {}, now, out);
    tell(MessageType::kWelcome,
         encode(Welcome{.peer = peer, .heartbeat_interval_ms = 1000, .dead_after_ms = 5000}),
         {.term = kTerm});
  }
  void start() {
    welcome();
    tell(MessageType::kCatchUp, encode(CatchUp{{{0, digest_of(1)}}, {}}));
    tell(MessageType::kStart, encode(Start{.step = 7}));
  }
  // We are peer 1; chunks 0 and 3 are of peer 0, chunk 1 is ours, chunk 2 of peer 2.
  static Authority round(uint32_t attempt = 1) {
    return {.term = kTerm, .round = 1, .attempt = attempt};
  }
  void open() {
    Open open;
    for (PeerId peer = 0; peer < 3; ++peer) {
      const base::Digest root = peer == 1 ? TinyStore::ours().root : contribution_of(peer).root;
      open.contributors.push_back({.peer = peer,
                                   .weight_tokens = 100 + int64_t(peer),
                                   .data = address(peer),
                                   .contribution = root});
    }
    open.owners = {0, 1, 2, 0};
    tell(MessageType::kOpen, encode(open), round());
  }
  LinkId coordinator() const { return links_to(Stage::default_options().coordinator).back(); }

  // Others.
  static Endpoint address(PeerId peer) { return {fmt::format("10.0.0.{}", peer), 4000}; }
  std::vector<LinkId> links_to(const Endpoint& endpoint) const {
    std::vector<LinkId> links;
    for (const auto& [link, dialled] : out.dialled) {
      if (dialled == endpoint) links.push_back(link);
    }
    return links;
  }
  LinkId link_to(PeerId peer) const { return links_to(address(peer)).back(); }
  void receive(LinkId link, MessageType type, Bytes payload, Authority authority = {}) {
    member->on_message(link,
                       {.type = type,
                        .run = run_hash("run"),
                        .source = kNobody,
                        .authority = authority,
                        .payload = std::move(payload)},
                       now, out);
    if (!holds_jobs) out.finish_jobs(now);
  }
  // What was asked for on the link, and not yet looked at here.
  std::vector<ChunkName> take_wants(LinkId link) {
    std::vector<ChunkName> wants;
    for (const Message& message : out.sent[link]) {
      if (message.type != MessageType::kWant) continue;
      wants.push_back(chunk_name(decode<Want>(*message.payload)->kind, message.authority));
    }
    out.sent[link].clear();
    return wants;
  }
  void give(PeerId from, const ChunkName& name, Bytes payload) {
    receive(link_to(from), MessageType::kChunk, std::move(payload), authority_of(name, 0));
  }
  LinkId guest() {
    const LinkId link = ++last_guest_;
    member->on_link_open(link, true, {"10.0.0.9", 1}, now, out);
    receive(link, MessageType::kDataHello, encode(DataHello{5}));
    return link;
  }
  void want(LinkId link, WantKind kind, Authority authority) {
    receive(link, MessageType::kWant, encode(Want{kind}), authority);
  }

  void pass(Duration time) {
    now += time;
    member->on_tick(now, out);
  }
  template <class T>
  const T* last_event() const {
    return events.empty() ? nullptr : std::get_if<T>(&events.back());
  }

  TinyStore store;
  RecordingOutbox out;
  Instant now = seconds(50);
  std::vector<MemberEvent> events;
  std::unique_ptr<Member> member;
  bool holds_jobs = false;  // Otherwise workers are done before anything else happens.

 private:
  LinkId last_guest_ = 0;
};

inline ChunkName name(WantKind kind, uint32_t chunk, uint32_t attempt = 1) {
  Authority authority = Stage::round(attempt);
  authority.chunk = chunk;
  return chunk_name(kind, authority);
}

// The part with this value: every one is there once.
inline Bytes part(int value) {
  for (const SealedContribution& all :
       {contribution_of(0), TinyStore::ours(), contribution_of(2)}) {
    for (const Bytes& payload : all.payloads) {
      if (payload->back() == std::byte(value)) return payload;
    }
  }
  return nullptr;
}
inline Bytes result(ContributorMask mask, int64_t weight, int value,
                    ContributorMask judged_out = 0) {
  return result_payload({mask, judged_out, weight}, one_byte(value));
}
// Of all chunks' digests.
inline base::Digest digest_of_results(const std::vector<Bytes>& results) {
  base::Sha256 hash;
  for (const Bytes& result : results) {
    const base::Digest one = base::sha256(*result);
    hash.update(std::as_bytes(std::span(one.bytes)));
  }
  return hash.finish();
}

// With round 1 open: members 0, 1 (we) and 2 contribute.
class InRound : public Stage {
 public:
  InRound() {
    start();
    member->ready(0, 101, 20, now, out);
    open();
  }
  // Everything arrives; our own chunk is summed from all three.
  void finish() {
    give(0, name(WantKind::kContribution, 1), part(1));
    give(2, name(WantKind::kContribution, 1), part(2));
    for (const uint32_t chunk : {0u, 3u}) {
      give(0, name(WantKind::kResult, chunk), result(0b111, 303, 40 + int(chunk)));
    }
    give(2, name(WantKind::kResult, 2), result(0b101, 202, 42));
  }
  base::Digest results_digest(Bytes ours = result(0b111, 303, 1 + 2 + 11)) const {
    return digest_of_results(
        {result(0b111, 303, 40), ours, result(0b101, 202, 42), result(0b111, 303, 43)});
  }
};

}  // namespace net
