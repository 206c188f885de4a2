// OuterLoop against a swarm that follows a script: each scenario says what the swarm answers to a
// command, or after how much silence it speaks, and looks at the commands, the outcome and the
// numbers. Time is the sum of the waits that brought nothing, so that no scenario depends on a
// clock.
#include <limits>

#include "outer_scenario.h"

using namespace outer;
using namespace outer::testing;

TEST_CASE("a round in which everybody takes part", "[outer][loop]") {
  Scenario s;
  s.join();
  s.swarm.on_ready = [&](int64_t f, uint64_t step) { s.say(s.commit(f, step, 100, true)); };
  for (uint64_t round = 1; round <= 3; ++round) {
    s.swarm.log.clear();
    s.steps(4 * round - 3, 4 * round - 1);
    REQUIRE(s.swarm.log.empty());
    REQUIRE(s.loop->tokens_since_commit() == std::vector<int64_t>{3 * kTokens});
    const StepOutcome outcome = s.step(4 * round);
    REQUIRE(s.swarm.log == Log{fmt::format("ready 0 {} {}", 4 * kTokens, 4 * round)});
    REQUIRE(outcome.rounds.size() == 1);
    REQUIRE(outcome.rounds[0].contributed);
    REQUIRE(outcome.rounds[0].round == round);
    REQUIRE(outcome.rounds[0].step == 4 * round);
    REQUIRE(outcome.rounds[0].digest.get() == s.node->state->states()[0].digest);
    REQUIRE(outcome.rounds[0].exposed_seconds >= outcome.rounds[0].apply_seconds);
    REQUIRE(!outcome.jump_to_step);
    REQUIRE(!outcome.state_replaced);
    REQUIRE(s.loop->tokens_since_commit() == std::vector<int64_t>{0});
    s.require_local(100);
    REQUIRE(s.swarm.last_step == 4 * round);
  }
  s.steps(13, 13);
  REQUIRE(s.swarm.applied_log == Log{"0 1", "0 2", "0 3"});
}

TEST_CASE("a round without us, heard of between two steps", "[outer][loop]") {
  Scenario s;
  s.join();
  s.steps(1, 1);
  s.say(s.commit(0, 4, 100, false));
  const StepOutcome outcome = s.step(2);
  REQUIRE(outcome.jump_to_step == 4);
  REQUIRE(outcome.rounds.size() == 1);
  REQUIRE(!outcome.rounds[0].contributed);
  s.require_local(102);  // Our two steps are kept,
  REQUIRE(s.swarm.log.empty());
  REQUIRE(s.loop->tokens_since_commit() == std::vector<int64_t>{2 * kTokens});
  s.steps(5, 7);
  REQUIRE(s.swarm.applied_log == Log{"0 1"});
  s.swarm.on_ready = [&](int64_t f, uint64_t step) { s.say(s.commit(f, step, 200, true)); };
  s.step(8);
  REQUIRE(s.swarm.log[0] ==
          fmt::format("ready 0 {} 8", 6 * kTokens));  // and weigh in the next round.
  s.require_local(200);
}

TEST_CASE("a round of this very step was held without us", "[outer][loop]") {
  Scenario s;
  s.join();
  s.steps(1, 3);
  SECTION("known before we are ready: nothing is announced") {
    s.say(s.commit(0, 4, 100, false));
    const StepOutcome outcome = s.step(4);
    REQUIRE(s.swarm.log.empty());
    REQUIRE(!outcome.jump_to_step);
  }
  SECTION("known afterwards: the announcement is taken back") {
    s.swarm.on_silence = [&] { s.say(s.commit(0, 4, 100, false)); };
    const StepOutcome outcome = s.step(4);
    REQUIRE(s.swarm.log == Log{"ready 0 40 4", "ready 0 -1 4"});
    REQUIRE(s.swarm.applied_log == Log{"0 1"});  // Before that, or it would be void.
    REQUIRE(outcome.rounds.size() == 1);
  }
  s.require_local(104);
  REQUIRE(s.loop->tokens_since_commit() == std::vector<int64_t>{4 * kTokens});
}

TEST_CASE("the result of an older round does not end the wait for this one", "[outer][loop]") {
  Scenario s;
  s.join(4);
  s.steps(5, 7);
  int words = 0;
  s.swarm.on_silence = [&] {
    ++words;
    if (words == 1) s.say(s.commit(0, 4, 100, false));
    if (words == 2) s.say(s.commit(0, 8, 200, true));
  };
  const StepOutcome outcome = s.step(8);
  REQUIRE(s.swarm.log == Log{"ready 0 40 8", "ready 0 40 8"});
  REQUIRE(s.swarm.applied_log[0] == "0 1");  // Or the second word would be void.
  REQUIRE(outcome.rounds.size() == 2);
  s.require_local(200);
}

TEST_CASE("rounds that do not fit the version are not applied", "[outer][loop]") {
  Scenario s;
  s.join();
  net::Committed old = s.commit(0, 4, 100, false);
  old.round = 0;
  net::Committed early = s.commit(0, 4, 100, false);
  early.round = 2;
  s.say(old);
  s.say(early);
  REQUIRE(s.step(1).rounds.empty());
  REQUIRE(s.swarm.applied_log == Log{"0 0", "0 0"});  // We say what we have.
  REQUIRE(s.node->state->states()[0].version == 0);
  s.require_local(1);
}

TEST_CASE("catching up in the middle of training keeps progress and jumps", "[outer][loop]") {
  Scenario s;
  s.join();
  s.steps(1, 1);
  s.advance_donor(100);
  bool first_is_damaged = false;
  SECTION("at once") {}
  SECTION("after a fetch that went wrong") {
    first_is_damaged = true;
  }
  int fetches = 0;
  s.swarm.on_fetch = [&] { s.deliver_donor_state(first_is_damaged && ++fetches == 1); };
  const bool is_started_at_once = GENERATE(true, false);
  const net::Started started{.peer = 7, .step = 40};
  s.swarm.on_synced = [&] {
    if (is_started_at_once) s.say(started);
  };
  s.say(net::CatchUpNeeded{.fragments = {0}});
  StepOutcome outcome = s.step(2);
  REQUIRE(s.swarm.log ==
          (first_is_damaged ? Log{"fetch", "fetch", "synced"} : Log{"fetch", "synced"}));
  REQUIRE(s.swarm.synced_states == s.donor->state->states());
  REQUIRE(s.node->state->states() == s.donor->state->states());
  REQUIRE(outcome.state_replaced);
  s.require_local(102);
  REQUIRE(s.loop->tokens_since_commit() == std::vector<int64_t>{2 * kTokens});
  if (!is_started_at_once) {
    REQUIRE(!outcome.jump_to_step);
    s.say(started);
    outcome = s.step(3);
  }
  REQUIRE(outcome.jump_to_step == 40);
  REQUIRE(outcome.peer == 7);
  REQUIRE(s.swarm.log.back() == "synced");  // The state is of step 40: nothing is due there.
}

TEST_CASE("catching up while waiting for a round", "[outer][loop]") {
  Scenario s;
  s.join();
  s.steps(1, 3);
  s.advance_donor(100);
  uint64_t started_at = 4;
  s.swarm.on_silence = [&] {
    if (s.swarm.log == Log{"ready 0 40 4"}) s.say(net::CatchUpNeeded{});
  };
  s.swarm.on_fetch = [&] { s.deliver_donor_state(); };
  s.swarm.on_synced = [&] { s.say(net::Started{.peer = 3, .step = started_at}); };
  SECTION("and still at that step: we announce again") {
    s.swarm.on_ready = [&](int64_t f, uint64_t step) {
      if (s.swarm.log.size() > 1) s.say(s.commit(f, step, 300, true));
    };
    const StepOutcome outcome = s.step(4);
    REQUIRE(s.swarm.log == Log{"ready 0 40 4", "fetch", "synced", "ready 0 40 4"});
    REQUIRE(outcome.rounds.size() == 1);
    REQUIRE(outcome.rounds[0].round == 6);
    s.require_local(300);
  }
  SECTION("and the swarm has moved on: we go with it") {
    started_at = 8;
    const StepOutcome outcome = s.step(4);
    REQUIRE(s.swarm.log == Log{"ready 0 40 4", "fetch", "synced", "ready 0 -1 8"});
    REQUIRE(outcome.jump_to_step == 8);
    s.require_local(104);
  }
}

TEST_CASE("a state that never verifies is not trained on", "[outer][loop]") {
  Scenario s;
  s.join();
  s.advance_donor(100);
  s.swarm.on_fetch = [&] { s.deliver_donor_state(true); };
  s.say(net::CatchUpNeeded{});
  REQUIRE_THROWS_AS(s.step(1), base::Error);
  REQUIRE(s.swarm.log.size() < 20);
}

TEST_CASE("a lost coordinator", "[outer][loop]") {
  Scenario s;
  s.join();
  s.steps(1, 3);
  SECTION("it is said while we wait; we may save, and nothing waits any more") {
    s.swarm.on_ready = [&](int64_t, uint64_t) { s.say(net::Stopped{.reason = "gone"}); };
    REQUIRE(s.step(4).lost == "gone");
    s.require_local(4);
    REQUIRE(s.loop->tokens_since_commit() == std::vector<int64_t>{4 * kTokens});
    REQUIRE(s.step(8).lost == "gone");
    REQUIRE(s.swarm.log == Log{"ready 0 40 4"});
  }
  SECTION("nothing at all is heard in a round") {
    REQUIRE(s.step(4).lost);
    REQUIRE(s.swarm.silence == std::chrono::seconds(7));
  }
  SECTION("what others do is no word for us") {
    int64_t calls = 0;
    s.swarm.on_silence = [&] {
      if (++calls % 2 == 0) return;
      s.say(net::MembershipChanged{.epoch = 9, .members = {3}});
      s.say(net::SamplesGranted{.first = 100, .count = 0});
      s.say(net::StandingChanged{.contributes = false, .reason = "late"});
    };
    const auto outcome = s.step(4);
    REQUIRE(outcome.lost);
    REQUIRE(s.swarm.silence == std::chrono::seconds(14));
    REQUIRE(outcome.standings.size() == outcome.memberships.size());
  }
  SECTION("while the state is fetched there is nothing to save") {
    s.say(net::CatchUpNeeded{});
    s.swarm.on_fetch = [&] { s.say(net::Stopped{.reason = "gone"}); };
    REQUIRE_THROWS_AS(s.step(4), base::Error);
  }
}

TEST_CASE("after the last step the others may be gone", "[outer][loop]") {
  Scenario s(1, 6);
  s.join();
  s.swarm.on_ready = [&](int64_t f, uint64_t step) { s.say(s.commit(f, step, 100, true)); };
  s.steps(1, 3);
  REQUIRE(s.step(4).rounds.size() == 1);
  s.require_local(100);
  SECTION("then it ends with what was committed, and its own last steps beside that") {
    s.swarm.on_ready = [&](int64_t, uint64_t) {
      s.say(net::Stopped{.reason = "gone", .restart_makes_sense = true});
    };
    s.steps(5, 5);
    REQUIRE(!s.step(6).lost);
    s.require_local(102);
    REQUIRE(s.node->state->version(0) == 1);
    REQUIRE(s.loop->in_flight().empty());
  }
  SECTION("or silent") {
    s.swarm.on_ready = {};
    s.steps(5, 5);
    REQUIRE(!s.step(6).lost);
    REQUIRE(s.loop->in_flight().empty());
  }
  SECTION("before it that is a loss, and a rejection always is") {
    s.say(net::Stopped{.reason = "gone", .restart_makes_sense = true});
    REQUIRE(s.step(5).lost == "gone");
  }
  SECTION("a rejection is one to the end") {
    s.swarm.on_ready = [&](int64_t, uint64_t) {
      s.say(net::Stopped{.reason = "rejected", .restart_makes_sense = false});
    };
    s.steps(5, 5);
    REQUIRE(s.step(6).lost == "rejected");
  }
}

TEST_CASE("samples are asked for, and handed on when they come", "[outer][loop]") {
  Scenario s;
  s.say(net::SamplesGranted{.first = 70, .count = 0});
  s.say(net::Started{.peer = 3, .step = 0, .samples_void_below = 40});
  REQUIRE(s.loop->join(true, kNeverStop)->samples_void_below == 40);
  REQUIRE(s.loop->samples() == 70);
  s.loop->need_samples(20);
  REQUIRE(s.swarm.log == Log{"need 20 samples"});
  SECTION("between two steps") {
    s.say(net::SamplesGranted{.first = 70, .count = 20});
    s.say(net::SamplesGranted{.first = 150, .count = 0});
    const StepOutcome outcome = s.step(1);
    REQUIRE(outcome.samples.size() == 1);
    REQUIRE(outcome.samples[0].first == 70);
    REQUIRE(outcome.samples[0].count == 20);
    REQUIRE(s.loop->samples() == 150);
  }
  SECTION("while they are waited for, with what else happens in between") {
    int words = 0;
    s.swarm.on_silence = [&] {
      ++words;
      if (words == 1) s.say(net::SamplesGranted{.first = 90, .count = 0});
      if (words == 2) s.say(s.commit(0, 8, 100, false));
      if (words == 4) s.say(net::SamplesGranted{.first = 90, .count = 20});
    };
    // The round that is due at the step to which we are moved was held without us.
    const StepOutcome outcome = s.loop->wait_for_samples(kNeverStop);
    REQUIRE(words == 4);
    REQUIRE(outcome.samples[0].first == 90);
    REQUIRE(outcome.rounds.size() == 1);
    REQUIRE(outcome.jump_to_step == 8);
    REQUIRE(s.loop->samples() == 110);
  }
  SECTION("the wait ends with the coordinator") {
    s.swarm.on_silence = [&] { s.say(net::Stopped{.reason = "gone"}); };
    const StepOutcome outcome = s.loop->wait_for_samples(kNeverStop);
    REQUIRE(outcome.lost == "gone");
    REQUIRE(outcome.samples.empty());
  }
  SECTION("and with a stop request") {
    int asked = 0;
    const StepOutcome outcome = s.loop->wait_for_samples([&] { return ++asked > 3; });
    REQUIRE(!outcome.lost);
    REQUIRE(outcome.samples.empty());
  }
  SECTION("and when nobody says anything") {
    REQUIRE(s.loop->wait_for_samples(kNeverStop).lost);
    REQUIRE(s.swarm.silence >= std::chrono::seconds(7));
  }
  SECTION("those of another run of the coordinator are void") {
    s.say(net::SamplesGranted{.first = 40, .count = 20});
    s.say(net::Started{.peer = 3, .step = 0, .samples_void_below = 60});
    s.say(net::SamplesGranted{.first = 60, .count = 20});
    const StepOutcome outcome = s.step(1);
    REQUIRE(outcome.samples_void_below == 60);
    REQUIRE(outcome.samples.size() == 2);
    REQUIRE(outcome.samples[0].count == 0);  // It is answered, but with nothing.
    REQUIRE(outcome.samples[1].count == 20);
  }
}

TEST_CASE("a stop request while waiting", "[outer][loop]") {
  Scenario s;
  s.join();
  s.steps(1, 3);
  int asked = 0;
  const auto stop = [&] { return ++asked > 3; };
  SECTION("in a round: what is in flight may be saved, and nothing is lost") {
    const StepOutcome outcome = s.step(4, stop);
    REQUIRE(s.swarm.log == Log{"ready 0 40 4"});
    REQUIRE(s.loop->in_flight().size() == 1);
    REQUIRE(!outcome.lost);
    s.require_local(4);
    REQUIRE(s.loop->tokens_since_commit() == std::vector<int64_t>{4 * kTokens});
    s.loop->leave("stopped");
    REQUIRE(s.swarm.log.back() == "leave stopped");
  }
  SECTION("while the state is fetched") {
    s.say(net::CatchUpNeeded{});
    REQUIRE_THROWS_AS(s.step(4, stop), base::Error);
  }
}

TEST_CASE("several fragments come in turn, and all at the end", "[outer][loop]") {
  Scenario s(2, 7);
  s.join();
  s.swarm.on_ready = [&](int64_t f, uint64_t step) {
    s.say(s.commit(f, step, 100.0f * float(step), true));
  };
  s.steps(1, 1);
  REQUIRE(s.step(2).rounds.size() == 1);
  s.require_fragment(0, 200);
  s.require_fragment(1, 2);
  REQUIRE(s.loop->tokens_since_commit() == std::vector<int64_t>{0, 2 * kTokens});
  s.steps(3, 3);
  REQUIRE(s.step(4).rounds.size() == 1);
  s.require_fragment(0, 202);
  s.require_fragment(1, 400);
  s.steps(5, 5);
  REQUIRE(s.step(6).rounds.size() == 1);
  REQUIRE(s.step(7).rounds.size() == 2);
  s.require_local(700);
  REQUIRE(s.swarm.log ==
          Log{"ready 0 20 2", "ready 1 40 4", "ready 0 40 6", "ready 0 10 7", "ready 1 30 7"});
  REQUIRE(s.swarm.applied_log == Log{"0 1", "1 1", "0 2", "0 3", "1 2"});
}

TEST_CASE("moved to a step at which another fragment is due, we take part in its round",
          "[outer][loop]") {
  Scenario s(2, 7);
  s.join();
  s.say(s.commit(0, 7, 100, false));
  s.swarm.on_ready = [&](int64_t f, uint64_t step) { s.say(s.commit(f, step, 200, true)); };
  const StepOutcome outcome = s.step(1);
  REQUIRE(s.swarm.log == Log{"ready 1 10 7"});
  REQUIRE(s.swarm.applied_log == Log{"0 1", "1 1"});
  REQUIRE(outcome.jump_to_step == 7);
  s.require_fragment(0, 101);
  s.require_fragment(1, 200);
}

TEST_CASE("parameters that are not finite have no weight and are healed by the round",
          "[outer][loop]") {
  Scenario s;
  s.join();
  s.steps(1, 3);
  s.node->local.units[1][2] = std::numeric_limits<float>::quiet_NaN();
  const bool contributed = GENERATE(true, false);
  s.swarm.on_ready = [&](int64_t f, uint64_t step) { s.say(s.commit(f, step, 100, contributed)); };
  const StepOutcome outcome = s.step(4);
  REQUIRE(s.swarm.log[0] == "ready 0 0 4");
  REQUIRE(outcome.state_replaced);
  s.require_local(100);
  REQUIRE(s.loop->tokens_since_commit() == std::vector<int64_t>{0});
}

TEST_CASE("joining", "[outer][loop]") {
  Scenario s;
  SECTION("with the state in force") {
    s.say(net::MembershipChanged{.epoch = 9, .members = {0, 5}});
    s.say(net::Started{.peer = 5, .step = 12});
    const auto entry = s.loop->join(false, kNeverStop);
    REQUIRE(entry->peer == 5);
    REQUIRE(entry->step == 12);
    REQUIRE(!entry->state_replaced);
    REQUIRE(entry->memberships.size() == 1);
    REQUIRE(entry->memberships[0].epoch == 9);
    REQUIRE(s.swarm.log.empty());
  }
  SECTION("with another one, and progress of our own that we keep or not") {
    const bool keep = GENERATE(true, false);
    s.loop->restore_tokens_since_commit({70});
    for (auto& unit : s.node->local.units) std::ranges::fill(unit, 3.0f);
    s.advance_donor(100);
    s.swarm.on_fetch = [&] { s.deliver_donor_state(); };
    s.swarm.on_synced = [&] { s.say(net::Started{.peer = 1, .step = 8}); };
    s.say(net::CatchUpNeeded{.fragments = {0}});
    const auto entry = s.loop->join(keep, kNeverStop);
    REQUIRE(entry->state_replaced);
    REQUIRE(entry->step == 8);
    s.require_local(keep ? 103.0f : 100.0f);
    REQUIRE(s.loop->tokens_since_commit() == std::vector<int64_t>{keep ? 70 : 0});
  }
  SECTION("rejected") {
    s.say(net::Stopped{.reason = "another config", .restart_makes_sense = false});
    try {
      (void)s.loop->join(false, kNeverStop);
      FAIL("joined");
    } catch (const base::Error& error) {
      REQUIRE(error.code() == base::ExitCode::kBadInput);
      REQUIRE(std::string(error.what()).find("another config") != std::string::npos);
    }
  }
  SECTION("nobody there") {
    try {
      (void)s.loop->join(false, kNeverStop);
      FAIL("joined");
    } catch (const base::Error& error) {
      REQUIRE(error.code() == base::ExitCode::kResourceLost);
      REQUIRE(s.swarm.silence == std::chrono::seconds(5));
    }
  }
  SECTION("stopped before anybody answered") {
    int asked = 0;
    REQUIRE(!s.loop->join(false, [&] { return ++asked > 2; }));
  }
}
