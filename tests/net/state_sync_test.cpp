// The state that is being fetched while it moves: two fragments, one of which is committed again
// and again.
#include "net/member/state_sync.h"

#include "net/member_stage.h"

namespace net {
namespace {

class TwoFragments : public TinyStore {
 public:
  int64_t fragment_count() const override { return 2; }
};

class Fetching {
 public:
  Fetching() : sync(store, fetcher, {{0, digest_of(1)}, {0, digest_of(1)}}) {
    quiet_log();
    fetcher.set_self(1);
    tell(1, 1);
    (void)sync.begin_fetch(now);
  }
  void tell(uint64_t first, uint64_t second) {
    const CatchUp to{{{first, digest_of(uint8_t(first))}, {second, digest_of(uint8_t(second))}},
                     {{0, {"10.0.0.0", 4000}}}};
    REQUIRE(sync.on_catch_up(to, 1, now).ok());
  }
  bool is_silent_for(Duration patience) { return sync.is_silent_for(patience, {now, out}); }
  // Answers what is asked of a fragment, up to so many blocks; returns how many those were.
  int64_t serve(uint32_t fragment, uint64_t version, int64_t most = 100) {
    int64_t served = 0;
    for (bool has_moved = true; has_moved && served < most;) {
      has_moved = false;
      for (const Authority& block : asked_of(fragment)) {
        if (served == most) return served;
        const Bytes payload = state_payload(version, one_byte(7));
        const auto delivery =
            fetcher.on_message(link(), {MessageType::kChunk, 1, 0, block, payload}, {now, out});
        answered.insert({fragment, block.chunk});
        if (!delivery) continue;
        last = sync.deliver(*delivery, payload, {now, out});
        ++served;
        has_moved = true;
      }
    }
    return served;
  }
  // Blocks that were wanted since the fragment's last version became known, and have not come.
  std::vector<Authority> asked_of(uint32_t fragment) {
    fetcher.pump({now, out});
    std::vector<Authority> blocks;
    for (const auto& [link, messages] : out.sent) {
      for (const Message& message : messages) {
        const Authority& block = message.authority;
        if (message.type != MessageType::kWant || block.fragment != fragment) continue;
        if (!answered.contains({fragment, block.chunk})) blocks.push_back(block);
      }
    }
    return blocks;
  }
  LinkId link() const { return out.dialled.rbegin()->first; }

  TwoFragments store;
  RecordingOutbox out;
  Fetcher fetcher{1, {.wants_in_flight_max = 64}};
  Instant now = seconds(10);
  std::set<std::pair<uint32_t, uint32_t>> answered;
  StateSync sync;
  StateSync::Outcome last;
};

TEST_CASE("state sync: what was fetched of a fragment that does not move stays") {
  Fetching fetching;
  REQUIRE(fetching.serve(0, 1) == 8);
  // The other one moves on, and what was asked of it is asked again; nothing of the first is.
  for (uint64_t version = 2; version < 6; ++version) {
    REQUIRE(fetching.serve(1, version - 1, 3) == 3);
    fetching.tell(1, version);
    fetching.answered.clear();
    REQUIRE(fetching.serve(0, 1) == 0);  // Nothing that was asked for before is waited for.
    fetching.answered.clear();
  }
  REQUIRE(fetching.serve(1, 5) == 8);
  REQUIRE(std::get<Fetched>(fetching.last).expected[1].version == 5);
}

TEST_CASE("state sync: only blocks are movement") {
  Fetching fetching;
  fetching.serve(0, 1, 1);
  for (uint64_t version = 2; version < 40; ++version) {
    fetching.now += seconds(1);
    fetching.tell(1, version);
  }
  REQUIRE(fetching.is_silent_for(seconds(38)));
  REQUIRE(!fetching.is_silent_for(seconds(39)));
  fetching.serve(0, 1, 1);
  REQUIRE(!fetching.is_silent_for(Duration(1)));
}

TEST_CASE("state sync: a new announcement does not start the patience again") {
  Fetching fetching;
  REQUIRE(fetching.serve(0, 1) == 8);
  REQUIRE(fetching.serve(1, 1, 7) == 7);
  fetching.now += seconds(50);
  (void)fetching.sync.begin_fetch(fetching.now);
  REQUIRE(fetching.is_silent_for(seconds(50)));
  REQUIRE(fetching.serve(1, 1) == 1);
}

}  // namespace
}  // namespace net
