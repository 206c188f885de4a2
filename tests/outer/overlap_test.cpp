// The outer loop with overlap: what it announces, waits for and merges, and when.
#include "outer_scenario.h"

using namespace outer;
using namespace outer::testing;

namespace {

// H = 8, one fragment, tau 2, tau_max 4.
Scenario streaming(int64_t steps_total = 0, uint64_t position = 0) {
  OuterConfig config = Scenario::plain_config();
  config.inner_steps = 8;
  config.overlap_steps = 2;
  config.overlap_steps_max = 4;
  return Scenario(config, steps_total, position);
}

}  // namespace

TEST_CASE("overlap: a result that is early is stepped at once and merged when it is time",
          "[outer][loop]") {
  Scenario s = streaming();
  s.join();
  s.steps(1, 8);
  REQUIRE(s.swarm.log == Log{"ready 0 80 8"});
  s.say(s.commit(0, 8, 100, true));
  s.steps(9, 9);
  REQUIRE(s.node->state->version(0) == 1);  // Donors have it before we merge it.
  REQUIRE(s.node->state->outer_parameters(0)[0] == 100);
  s.require_local(9);
  REQUIRE(s.loop->tokens_since_commit() == std::vector<int64_t>{kTokens});
  const StepOutcome outcome = s.step(10);
  REQUIRE(outcome.rounds.size() == 1);
  REQUIRE(outcome.rounds[0].begun_step == 8);
  REQUIRE(outcome.rounds[0].applied_step == 10);
  REQUIRE(outcome.rounds[0].wait_seconds == 0);
  REQUIRE(outcome.rounds[0].digest.get() == s.node->state->states()[0].digest);
  REQUIRE(s.swarm.applied_log == Log{"0 1"});
  s.require_local(102);  // Of the two steps since, nothing is lost.
  REQUIRE(s.swarm.silence == net::Duration{0});
}

TEST_CASE("overlap: a late result is waited for at tau_max, and not before", "[outer][loop]") {
  Scenario s = streaming();
  s.join();
  s.steps(1, 11);
  REQUIRE(s.swarm.log == Log{"ready 0 80 8"});
  REQUIRE(s.swarm.silence == net::Duration{0});
  s.swarm.on_silence = [&] { s.say(s.commit(0, 8, 100, true)); };
  const StepOutcome outcome = s.step(12);
  REQUIRE(s.swarm.silence > net::Duration{0});
  REQUIRE(outcome.rounds[0].applied_step == 12);
  s.require_local(104);
  REQUIRE(s.loop->tokens_since_commit() == std::vector<int64_t>{4 * kTokens});
}

TEST_CASE("overlap: the last step of a run waits for all, and ends at the swarm's parameters",
          "[outer][loop]") {
  Scenario s = streaming(9);
  s.join();
  s.steps(1, 8);
  int words = 0;
  s.swarm.on_silence = [&] {
    if (++words == 1) s.say(s.commit(0, 8, 100, true));
  };
  s.swarm.on_ready = [&](int64_t f, uint64_t step) { s.say(s.commit(f, step, 200, true)); };
  const StepOutcome outcome = s.step(9);
  REQUIRE(s.swarm.log == Log{"ready 0 80 8", "ready 0 10 9"});
  REQUIRE(s.swarm.applied_log == Log{"0 1", "0 2"});
  REQUIRE(outcome.rounds.size() == 2);
  s.require_local(200);
}

TEST_CASE("overlap: several fragments are in flight, and come back in any order", "[outer][loop]") {
  OuterConfig config = Scenario::plain_config(3);
  config.inner_steps = 6;
  config.overlap_steps = 1;
  config.overlap_steps_max = 5;
  Scenario s(config, 0);
  s.join();
  s.steps(1, 5);
  REQUIRE(s.swarm.log == Log{"ready 0 20 2", "ready 1 40 4"});
  REQUIRE(s.loop->in_flight().size() == 2);
  s.say(s.commit(1, 4, 100, true));
  REQUIRE(s.step(6).rounds.size() == 1);
  s.require_fragment(1, 102);
  s.require_fragment(0, 6);
  s.say(s.commit(0, 2, 50, true));
  REQUIRE(s.step(7).rounds.size() == 1);
  s.require_fragment(0, 55);
  REQUIRE(s.loop->in_flight().size() == 1);
}

TEST_CASE("overlap: where our part was not counted, it is in the next round", "[outer][loop]") {
  Scenario s = streaming();
  s.join();
  s.steps(1, 8);
  SECTION("the round was held without us") {
    s.say(s.commit(0, 8, 100, false));
    REQUIRE(!s.step(9).rounds[0].contributed);
    s.require_local(109);
    REQUIRE(s.loop->tokens_since_commit() == std::vector<int64_t>{9 * kTokens});
    REQUIRE(s.loop->in_flight().empty());
    REQUIRE(!s.node->state->contribution(0, 0));
  }
  SECTION("the chunk was closed without us") {
    net::Committed commit = s.commit(0, 8, 100, true);
    commit.has_ours = {0};
    s.say(commit);
    s.steps(9, 9);
    REQUIRE(s.step(10).rounds[0].contributed);
    s.require_local(110);
  }
}

TEST_CASE("overlap: what is in flight can be saved, and goes on as if we had never stopped",
          "[outer][loop]") {
  Scenario s = streaming();
  s.join();
  s.steps(1, 8);
  SECTION("a result that is there") {
    s.say(s.commit(0, 8, 100, true));
    s.steps(9, 9);
    const auto in_flight = s.loop->in_flight();
    REQUIRE(in_flight.size() == 1);
    REQUIRE(in_flight[0].merge_from == 10);
    Scenario again = streaming(0, 9);
    again.node->local.units = s.node->local.units;
    const OuterState& saved = *s.node->state;
    again.node->state->restore(0, 1, saved.outer_parameters(0), saved.outer_momentum(0));
    again.node->state->restore_unmerged(0, saved.unmerged(0));
    REQUIRE(again.node->state->unmerged(0).flags == saved.unmerged(0).flags);
    again.loop->restore_in_flight(in_flight);
    again.say(net::Started{.peer = 3, .step = 8});
    REQUIRE(again.loop->join(true, kNeverStop)->step == 9);
    again.require_local(9);
    const StepOutcome outcome = again.step(10);
    REQUIRE(outcome.has_merged);
    REQUIRE(outcome.rounds.empty());  // It is no news.
    s.step(10);
    REQUIRE(again.node->local.all() == s.node->local.all());
    again.require_local(102);
  }
  SECTION("a contribution on its way: as if we had never stopped") {
    s.steps(9, 9);
    const auto in_flight = s.loop->in_flight();
    REQUIRE(in_flight.size() == 1);
    Scenario again = streaming(0, 9);
    again.node->local.units = s.node->local.units;
    again.node->state->restore_frozen(0, s.node->state->frozen(0));
    REQUIRE(again.node->state->frozen(0) == s.node->state->frozen(0));
    again.loop->restore_tokens_since_commit(s.loop->tokens_since_commit());
    again.loop->restore_in_flight(in_flight);
    bool has_gone_on = false;
    SECTION("and the round goes on") {}
    SECTION("and the run has gone on without us: it was counted, most likely") {
      has_gone_on = true;
      again.advance_donor(100);
      again.swarm.on_fetch = [&] { again.deliver_donor_state(); };
      again.swarm.on_synced = [&] { again.say(net::Started{.peer = 3, .step = 9}); };
      again.say(net::CatchUpNeeded{.fragments = {0}});
    }
    if (!has_gone_on) again.say(net::Started{.peer = 3, .step = 0});
    REQUIRE(again.loop->join(true, kNeverStop)->step == 9);
    REQUIRE(again.loop->tokens_since_commit() ==
            std::vector<int64_t>{has_gone_on ? kTokens : 9 * kTokens});
    if (has_gone_on) {
      again.require_local(101);  // Eight of our nine steps are in the state already.
      REQUIRE(again.loop->in_flight().empty());
    } else {
      REQUIRE(again.swarm.log == Log{"ready 0 80 8"});
      again.say(again.commit(0, 8, 100, true));
      REQUIRE(again.step(10).rounds.size() == 1);
      again.require_local(102);
    }
  }
}

TEST_CASE("overlap: what somebody had asked for is taken for counted in a round that we missed",
          "[outer][loop]") {
  Scenario s = streaming();
  s.join();
  s.steps(1, 8);
  const bool was_asked_for = GENERATE(true, false);
  if (was_asked_for) REQUIRE(s.node->state->contribution(0, 0));
  s.advance_donor(100);  // Its round is in that state.
  s.swarm.on_fetch = [&] { s.deliver_donor_state(); };
  s.swarm.on_synced = [&] { s.say(net::Started{.peer = 4, .step = 8}); };
  s.say(net::CatchUpNeeded{.fragments = {0}});
  REQUIRE(s.step(9).state_replaced);
  Log expected = {"ready 0 80 8", "fetch", "synced"};
  if (!was_asked_for) expected.push_back("ready 0 80 8");  // It is whole, for the next round.
  REQUIRE(s.swarm.log == expected);
  REQUIRE(s.loop->in_flight().empty() == was_asked_for);
  s.require_local(was_asked_for ? 101 : 109);
  REQUIRE(s.loop->tokens_since_commit() ==
          std::vector<int64_t>{was_asked_for ? kTokens : 9 * kTokens});
}

TEST_CASE("overlap: two that hold each other up meet at all fragments", "[outer][loop]") {
  OuterConfig config = Scenario::plain_config(2);
  config.inner_steps = 20;
  config.overlap_steps = 1;
  config.overlap_steps_max = 2;
  Scenario s(config, 0, 11, std::chrono::minutes(10));  // Behind the turn of fragment 0, at 10.
  s.say(net::Started{.peer = 3, .step = 11});
  REQUIRE(s.loop->join(true, kNeverStop)->step == 11);
  s.steps(12, 21);
  REQUIRE(s.swarm.log == Log{"ready 1 90 20"});
  s.swarm.on_ready = [&](int64_t f, uint64_t step) {
    if (f == 0) s.say(s.commit(0, step, 100, true));
    if (f == 0) s.say(s.commit(1, 20, 100, true));
  };
  const StepOutcome outcome = s.step(22);
  REQUIRE(s.swarm.silence == std::chrono::minutes(5));
  REQUIRE(s.swarm.log[1] == "ready 0 110 22");
  REQUIRE(!outcome.lost);
  REQUIRE(outcome.rounds.size() == 1);  // That of fragment 0 is young.
}

TEST_CASE("overlap: bytes that are no contribution are refused", "[outer][loop]") {
  Scenario s = streaming();
  std::vector<std::byte> bytes(4 * 12);
  REQUIRE_NOTHROW(s.node->state->restore_frozen(0, bytes));
  bytes.pop_back();
  REQUIRE_THROWS_AS(s.node->state->restore_frozen(0, bytes), base::Error);
  bytes.resize(4 * 12 + 4);
  REQUIRE_THROWS_AS(s.node->state->restore_frozen(0, bytes), base::Error);
  bytes.resize(4 * 12);
  REQUIRE_THROWS_AS(s.node->state->restore_unmerged(0, {.results = bytes}), base::Error);
  REQUIRE_THROWS_AS(s.node->state->restore_unmerged(0, {.flags = {std::byte{1}}}), base::Error);
  REQUIRE_NOTHROW(s.node->state->restore_unmerged(0, {.results = bytes, .flags = {std::byte{1}}}));
}

TEST_CASE("overlap: a repair keeps what is in flight, and merges what is there", "[outer][loop]") {
  Scenario s = streaming();
  s.join();
  s.steps(1, 8);
  s.advance_donor(100);
  s.swarm.on_fetch = [&] { s.deliver_donor_state(); };
  s.swarm.on_synced = [&] { s.say(net::Started{.peer = 3, .step = 8}); };
  s.say(net::CatchUpNeeded{.fragments = {0}});
  REQUIRE(s.step(9).state_replaced);
  s.require_local(109);
  REQUIRE(s.swarm.log == Log{"ready 0 80 8", "fetch", "synced", "ready 0 80 8"});
  s.say(s.commit(0, 8, 200, true));
  s.step(10);
  s.require_local(202);
}
