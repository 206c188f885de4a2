// The gaps between rounds' chunks, on a line that takes what is queued at a fixed rate.
#include "net/exchange/gaps.h"

#include "net/member_stage.h"

namespace net {
namespace {

constexpr int64_t kGapBlock = 1024 * 1024;

// Sends blocks whenever it may, for so long; `round_bytes` is what a round has queued at a time.
struct Line {
  explicit Line(double share) : gaps(share) {}

  template <class RoundBytes>
  void run(Duration time, int64_t bytes_per_second, const RoundBytes& round_bytes) {
    gaps.on_wanted(now);
    const auto step_bytes = double(bytes_per_second) * 1e-3;
    for (const Instant end = now + time; now < end; now += milliseconds(1)) {
      queued = std::max<int64_t>(0, queued - int64_t(step_bytes));
      gaps.watch(round_bytes(now), queued, now);
      if (!gaps.is_open(now)) continue;
      queued += kGapBlock;
      ++sent;
      gaps.on_sent(now);
      gaps.watch(round_bytes(now), queued, now);
    }
  }
  Gaps gaps;
  Instant now = seconds(100);
  int64_t queued = 0, sent = 0;
};

TEST_CASE("gaps: nothing leaves while a round's chunk waits, but now and then") {
  Line line(1);
  line.run(seconds(19), 10 * kGapBlock, [](Instant) { return int64_t{1}; });
  REQUIRE(line.sent == 0);
  line.run(seconds(82), 10 * kGapBlock, [](Instant) { return int64_t{1}; });
  REQUIRE(line.sent == 5);
  line.run(seconds(1), 10 * kGapBlock, [](Instant) { return int64_t{0}; });
  REQUIRE(line.sent > 12);
}

TEST_CASE("member: what is wanted to catch up waits for what is wanted for rounds") {
  InRound stage;
  const LinkId in_round = stage.guest(), newcomer = stage.guest();
  stage.want(in_round, WantKind::kContribution, Stage::round());
  REQUIRE(stage.out.count(in_round, MessageType::kChunk) == 1);
  stage.out.queued = 10;  // On each link.
  stage.want(newcomer, WantKind::kState, {.chunk = 3});
  for (int tick = 0; tick < 20; ++tick) {
    stage.tell(MessageType::kHeartbeatReply, no_payload());
    stage.pass(milliseconds(250));
  }
  REQUIRE(stage.out.count(newcomer, MessageType::kChunk) == 0);
  stage.want(in_round, WantKind::kContribution, Stage::round());
  REQUIRE(stage.out.count(in_round, MessageType::kChunk) == 2);
  stage.out.queued = 0;
  stage.pass(milliseconds(250));
  REQUIRE(stage.out.count(newcomer, MessageType::kChunk) == 1);
}

// Else as many as there are could make us queue blocks without end.
TEST_CASE("member: a link that takes nothing gets no more blocks") {
  InRound stage;
  const LinkId newcomer = stage.guest();
  stage.want(newcomer, WantKind::kState, {.chunk = 3});
  REQUIRE(stage.out.count(newcomer, MessageType::kChunk) == 1);
  stage.out.queued = 10;  // On each link.
  const auto wait = [&] {
    for (int tick = 0; tick < 60; ++tick) {
      stage.tell(MessageType::kHeartbeatReply, no_payload());
      stage.pass(milliseconds(250));
    }
  };
  wait();
  stage.want(newcomer, WantKind::kState, {.chunk = 4});
  wait();
  REQUIRE(stage.out.count(newcomer, MessageType::kChunk) == 1);
  stage.out.queued = 0;
  stage.pass(milliseconds(250));
  REQUIRE(stage.out.count(newcomer, MessageType::kChunk) == 2);
}

}  // namespace
}  // namespace net
