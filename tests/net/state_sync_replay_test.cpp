// A state that is brought to the version in force by the results of rounds. The oracle: a block
// holds its number and the sum of what the rounds until its version did to its chunk.
#include "net/member/state_sync.h"
#include "net/member_stage.h"

namespace net {
namespace {

constexpr uint64_t kRefusedRound = 3;

int result_of(uint64_t round, int64_t chunk) {
  return int((round * 5 + uint64_t(chunk) * 3) % 11);
}
int block_at(int64_t block, uint64_t version) {
  int value = int(block);
  for (uint64_t round = 1; round <= std::min<uint64_t>(version, 100); ++round) {
    if (round != kRefusedRound) value += result_of(round, block / 2);
  }
  return value;
}

class ReplayStore : public TinyStore {
 public:
  Cut cut(int64_t) const override {
    return {.elements = 8, .chunk_elements = 2, .block_elements = 1};
  }
  int64_t replay_rounds_max(int64_t) const override { return 6; }
  base::Result<void> replay_block(int64_t, int64_t block, uint64_t,
                                  std::span<const PastChunk> chunks) override {
    REQUIRE(chunks.size() == 1);
    if (!chunks[0].is_refused) written[block] += int(chunks[0].result.encoded()[0]);
    return {};
  }
};

// A member whose own state is of version `own`, and one donor.
class Replaying {
 public:
  explicit Replaying(uint64_t own, uint64_t target)
      : donor_version(target), sync(store, fetcher, {{own, digest_of(uint8_t(own))}}) {
    quiet_log();
    fetcher.set_self(1);
    for (int64_t block = 0; block < 8; ++block) store.written[block] = block_at(block, own);
    tell(target);
    (void)sync.begin_fetch(now);
  }
  void tell(uint64_t version) {
    const CatchUp to{{{version, digest_of(uint8_t(version))}}, {{0, {"10.0.0.0", 4000}}}};
    auto outcome = sync.on_catch_up(to, 1, now);
    REQUIRE(outcome.ok());
    last = std::move(*outcome);
  }
  // Answers up to so many wants, as the donor would. Returns how many blocks and results came.
  struct Served {
    int64_t blocks = 0, results = 0;
    bool operator==(const Served&) const = default;
  };
  Served serve(int64_t most = 1000) {
    Served served;
    for (; most > 0; --most) {
      const auto name = next_want();
      if (!name) break;
      const Bytes payload = answer(*name);
      const auto type = payload ? MessageType::kChunk : MessageType::kGone;
      const auto delivery = fetcher.on_message(
          link(),
          {type, 1, 0, authority_of(*name, 0), payload ? payload : encode(Gone{name->kind})},
          {now, out});
      if (delivery) {
        ++(name->kind == WantKind::kState ? served.blocks : served.results);
        last = sync.deliver(*delivery, payload, {now, out});
      }
      auto outcome = sync.on_nobody_has(fetcher.take_nobody_has(), now);
      if (!std::holds_alternative<std::monostate>(outcome)) last = std::move(outcome);
    }
    return served;
  }
  void require_state(uint64_t version) {
    REQUIRE(std::get<Fetched>(last).expected[0].version == version);
    for (int64_t block = 0; block < 8; ++block) {
      REQUIRE(store.written[block] == block_at(block, version));
    }
  }

  ReplayStore store;
  RecordingOutbox out;
  Fetcher fetcher{1, {.wants_in_flight_max = 2}};
  Instant now = seconds(10);
  uint64_t donor_version = 0;
  uint64_t oldest_kept = 1;
  StateSync sync;
  StateSync::Outcome last;

 private:
  LinkId link() const { return out.dialled.rbegin()->first; }
  std::optional<ChunkName> next_want() {
    fetcher.pump({now, out});
    if (out.dialled.empty()) return std::nullopt;
    const auto can_be_answered = [&](const ChunkName& name) { return name.round <= donor_version; };
    const auto parked = std::ranges::find_if(parked_, can_be_answered);
    if (parked != parked_.end()) {
      const ChunkName name = *parked;
      parked_.erase(parked);
      return name;
    }
    const auto& sent = out.sent[link()];
    for (; looked_at_ < sent.size(); ++looked_at_) {
      const Message& message = sent[looked_at_];
      if (message.type != MessageType::kWant) continue;
      const auto kind = decode<Want>(*message.payload)->kind;
      parked_.push_back(chunk_name(kind, message.authority));
      if (!can_be_answered(parked_.back())) continue;
      ++looked_at_;
      const ChunkName name = parked_.back();
      parked_.pop_back();
      return name;
    }
    return std::nullopt;
  }
  Bytes answer(const ChunkName& name) const {
    if (name.kind == WantKind::kState)
      return state_payload(donor_version, one_byte(block_at(name.chunk, donor_version)));
    if (name.round < oldest_kept) return nullptr;
    const bool is_refused = name.round == kRefusedRound;
    return past_payload({.step = 7,
                         .is_refused = is_refused,
                         .result = {.bytes = frozen(one_byte(result_of(name.round, name.chunk))),
                                    .offset = kContributionOffset}});
  }

  size_t looked_at_ = 0;
  std::vector<ChunkName> parked_;  // Asked for, and not made yet.
};

using Served = Replaying::Served;

TEST_CASE("state sync: who has missed a few rounds fetches their results and no block") {
  Replaying replaying(1, 4);
  REQUIRE(replaying.serve() == Served{.blocks = 0, .results = 3 * 4});
  replaying.require_state(4);
}

TEST_CASE("state sync: who has missed more rounds than the state is worth fetches that") {
  Replaying replaying(1, 8);
  REQUIRE(replaying.serve() == Served{.blocks = 8, .results = 0});
  replaying.require_state(8);
}

TEST_CASE("state sync: a state that moves on in the middle costs the results of a round") {
  Replaying replaying(0, 20);
  REQUIRE(replaying.serve(3) == Served{.blocks = 3, .results = 0});
  replaying.donor_version = 21;
  SECTION("and the coordinator says so") {
    replaying.tell(21);
  }
  SECTION("before the coordinator says so") {
    REQUIRE(replaying.serve(2).blocks == 2);
    REQUIRE(std::holds_alternative<std::monostate>(replaying.last));
    replaying.tell(21);
  }
  const Served rest = replaying.serve();
  REQUIRE(rest.results == 2);  // Of the chunks of the first three blocks.
  replaying.require_state(21);
}

TEST_CASE("state sync: it may move on all the time") {
  Replaying replaying(0, 20);
  Served all;
  for (uint64_t version = 21; version < 28; ++version) {
    const Served served = replaying.serve(2);
    all.blocks += served.blocks;
    replaying.donor_version = version;
    replaying.tell(version);
  }
  all.blocks += replaying.serve().blocks;
  REQUIRE(all.blocks == 8);
  replaying.require_state(27);
}

TEST_CASE("state sync: blocks whose results nobody keeps are fetched again") {
  Replaying replaying(1, 4);
  replaying.oldest_kept = 3;
  REQUIRE(replaying.serve().blocks == 8);
  replaying.require_state(4);
}

TEST_CASE("state sync: a donor that is behind gives blocks all the same") {
  Replaying replaying(0, 20);
  replaying.donor_version = 19;
  REQUIRE(replaying.serve(8).blocks == 8);
  replaying.donor_version = 20;
  REQUIRE(replaying.serve() == Served{.blocks = 0, .results = 4});
  replaying.require_state(20);
}

TEST_CASE("state sync: versions that cannot be are not taken") {
  for (const uint64_t version : {uint64_t{13}, uint64_t{29}, kNoVersion - 1}) {
    Replaying replaying(0, 20);
    replaying.donor_version = version;
    const auto before = replaying.store.written;
    replaying.serve(8);
    REQUIRE(replaying.store.written == before);
    replaying.donor_version = 20;
    replaying.now += seconds(2);
    REQUIRE(replaying.serve().blocks == 8);
    replaying.require_state(20);
  }
}

TEST_CASE("state sync: an older state in force takes the place of what is there of a newer one") {
  Replaying replaying(0, 20);
  REQUIRE(replaying.serve(5).blocks == 5);
  replaying.donor_version = 18;
  replaying.tell(18);
  REQUIRE(replaying.serve() == Served{.blocks = 8, .results = 0});
  replaying.require_state(18);
}

}  // namespace
}  // namespace net
