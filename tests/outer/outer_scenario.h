// One node with a swarm that follows a script, for the tests of the outer loop.
#pragma once

#include <deque>

#include "fixture.h"
#include "outer/outer_loop.h"
#include "support/catch.h"

namespace outer::testing {

class ScriptedSwarm final : public net::Swarm {
 public:
  void ready(int64_t fragment, int64_t weight_tokens, uint64_t step) override {
    log.push_back(fmt::format("ready {} {} {}", fragment, weight_tokens, step));
    if (on_ready && weight_tokens >= 0) on_ready(fragment, step);
  }
  void begin_fetch() override {
    log.push_back("fetch");
    if (on_fetch) on_fetch();
  }
  void synced(std::vector<net::FragmentState> states) override {
    log.push_back("synced");
    synced_states = std::move(states);
    if (on_synced) on_synced();
  }
  void applied(int64_t fragment, const net::FragmentState& state) override {
    applied_log.push_back(fmt::format("{} {}", fragment, state.version));
  }
  void progress(uint64_t step, float) override { last_step = step; }
  void need_samples(uint64_t count) override {
    log.push_back(fmt::format("need {} samples", count));
  }
  void leave(const std::string& reason) override { log.push_back("leave " + reason); }
  std::optional<net::MemberEvent> wait(net::Duration patience) override {
    if (events.empty()) {
      silence += patience;
      if (patience > net::Duration{0} && on_silence) on_silence();
    }
    if (events.empty()) return std::nullopt;
    net::MemberEvent event = std::move(events.front());
    events.pop_front();
    return event;
  }
  int64_t bytes_sent() const override { return 0; }
  int64_t bytes_received() const override { return 0; }

  std::deque<net::MemberEvent> events;
  std::vector<std::string> log;
  std::vector<std::string> applied_log;  // Of its own: it waits for digests, and nobody for it.
  std::vector<net::FragmentState> synced_states;
  uint64_t last_step = 0;
  net::Duration silence{0};
  std::function<void(int64_t fragment, uint64_t step)> on_ready;
  std::function<void()> on_fetch, on_synced, on_silence;
};

using Log = std::vector<std::string>;

inline constexpr int64_t kTokens = 10;  // Per inner step.
inline const std::function<bool()> kNeverStop = [] { return false; };

// One node with a scripted swarm. Plain averaging, so that the numbers are easy: the outer
// parameters after a round are what the round says.
struct Scenario {
  static OuterConfig plain_config(int64_t fragments = 1) {
    OuterConfig config;
    config.inner_steps = 4;
    config.fragments = fragments;
    config.codec = "fp32";
    config.learning_rate = 1;
    config.momentum = 0;
    return config;
  }
  explicit Scenario(int64_t fragments = 1, int64_t steps_total = 0)
      : Scenario(plain_config(fragments), steps_total) {}
  Scenario(const OuterConfig& config_in, int64_t steps_total, uint64_t position = 0,
           net::Duration patience = std::chrono::seconds(7))
      : config(config_in) {
    node = std::make_unique<TestNode>(config, make_layout({3, 4, 5}));
    donor = std::make_unique<TestNode>(config, make_layout({3, 4, 5}));
    loop = OuterLoop::create({.config = config,
                              .steps_total = steps_total,
                              .position = position,
                              .join_timeout = std::chrono::seconds(5),
                              .round_patience = patience},
                             *node->state, swarm);
  }

  // A round after which all outer parameters of the fragment are `value`.
  net::Committed commit(int64_t fragment, uint64_t step, float value, bool contributed) const {
    OuterState& state = *node->state;
    net::Committed commit{.fragment = fragment};
    commit.round = state.states()[size_t(fragment)].version + 1;
    commit.step = step;
    commit.contributed = contributed;
    commit.has_ours = {contributed};
    std::vector<float> change;
    for (const float old : state.outer_parameters(fragment)) change.push_back(old - value);
    const auto bytes = std::as_bytes(std::span(change));
    commit.results.push_back(make_part(0, 1, {bytes.begin(), bytes.end()}));
    return commit;
  }
  void say(net::MemberEvent event) { swarm.events.push_back(std::move(event)); }

  void join(uint64_t step = 0) {
    say(net::Started{.peer = 3, .step = step});
    REQUIRE(loop->join(true, kNeverStop)->step == step);
  }
  // An inner step of 1 on every parameter, and what comes after it.
  StepOutcome step(uint64_t steps_done, const std::function<bool()>& stop = kNeverStop) {
    (void)node->state->states();  // What is made beside training is there, every time.
    for (auto& unit : node->local.units) {
      for (float& value : unit) value += 1;
    }
    return loop->after_step(steps_done, kTokens, 2.5, stop);
  }
  void steps(uint64_t first, uint64_t last) {
    for (uint64_t s = first; s <= last; ++s) {
      const StepOutcome outcome = step(s);
      REQUIRE(outcome.rounds.empty());
      REQUIRE(!outcome.lost);
    }
  }
  // All blocks of the donor, one of them damaged if told so, and the word that all is there.
  void deliver_donor_state(bool is_damaged = false) {
    for (int64_t f = 0; f < node->state->fragment_count(); ++f) {
      auto block = donor->state->read_block(f, 0);
      if (is_damaged) block->bytes[0] ^= std::byte{1};
      REQUIRE(node->state->write_block(f, 0, block->bytes).ok());
    }
    say(net::Fetched{.expected = donor->state->states()});
  }
  // The donor's outer parameters are `value`, at version 5.
  void advance_donor(float value) {
    for (int64_t f = 0; f < donor->state->fragment_count(); ++f) {
      const size_t count = donor->state->outer_parameters(f).size();
      donor->state->restore(f, 5, std::vector<float>(count, value),
                            std::vector<float>(count, 0.5f));
    }
  }
  void require_local(float value) const {
    for (const float local : node->local.all()) REQUIRE(local == value);
  }
  void require_fragment(int64_t fragment, float value) const {
    for (const int64_t unit : node->state->fragment(fragment).units) {
      for (const float local : node->local.units[size_t(unit)]) REQUIRE(local == value);
    }
  }

  OuterConfig config;
  std::unique_ptr<TestNode> node;
  std::unique_ptr<TestNode> donor;
  ScriptedSwarm swarm;
  std::unique_ptr<OuterLoop> loop;
};

}  // namespace outer::testing
