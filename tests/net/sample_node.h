// A node of which only the use of samples matters: it trains on so many a step, takes part in a
// round of one chunk every kStepsPerRound steps, has a checkpoint of every round, and asks for
// samples by the rule of train/node.cpp.
//
// Its model is the list of samples that were trained on: a contribution is what this node trained
// on since the last round, a result is all of them in a row, and it is appended to the state. So
// the state in force says what the model has seen, and how often.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "net/member.h"
#include "net/simulator.h"

namespace net {

class SampleNode : public FragmentStore {
 public:
  static constexpr uint64_t kStepsPerRound = 5;

  // What survives a crash.
  struct Disk {
    uint64_t version = 0;
    std::vector<uint64_t> state;
    uint64_t step = 0;
    uint64_t heard = 0;
    std::deque<uint64_t> left;
  };

  SampleNode(World& world, HostId host, uint64_t batch, Disk disk);

  Member& make_member(MemberOptions options);
  Disk disk() const { return disk_; }

  uint64_t version() const { return live_.version; }
  const std::vector<uint64_t>& state() const { return live_.state; }
  const std::vector<uint64_t>& progress() const { return progress_; }  // Not in the state yet.
  const std::deque<uint64_t>& left() const { return live_.left; }
  uint64_t heard() const { return live_.heard; }
  uint64_t step() const { return live_.step; }
  bool is_active() const { return is_running_; }
  bool is_asking() const { return is_asking_; }

  int64_t fragment_count() const override { return 1; }
  int64_t chunk_count(int64_t) const override { return 1; }
  Bytes contribution(int64_t, int64_t) override;
  base::Digest contribution_root(int64_t) const override;
  base::Result<void> check_contribution(int64_t, int64_t,
                                        std::span<const std::byte>) const override {
    return {};
  }
  base::Result<void> check_result(int64_t, int64_t, std::span<const std::byte>) const override {
    return {};
  }
  Mean reduce(int64_t, int64_t, std::span<const Part> parts) override;
  std::optional<Mean> repeat(int64_t fragment, uint64_t, int64_t chunk,
                             std::span<const Part> parts) override {
    return reduce(fragment, chunk, parts);
  }
  int64_t block_count(int64_t) const override { return 1; }
  std::optional<StateBlock> read_block(int64_t, int64_t) override {
    return StateBlock{.version = live_.version, .bytes = bytes_of(live_.state)};
  }
  base::Result<void> write_block(int64_t, int64_t, std::span<const std::byte> bytes) override {
    live_.state = numbers_of(bytes);
    return {};
  }

 private:
  static std::vector<std::byte> bytes_of(const std::vector<uint64_t>& numbers);
  static std::vector<uint64_t> numbers_of(std::span<const std::byte> bytes);
  FragmentState fragment_state() const {
    return {live_.version, base::sha256(std::as_bytes(std::span(live_.state)))};
  }

  void handle(const MemberEvent& event);
  void on_event(const CatchUpNeeded& needed);
  void on_event(const Fetched& fetched);
  void on_event(const Started& started);
  void on_event(const SamplesGranted& granted);
  void on_event(const MembershipChanged&) {}
  void on_event(const StandingChanged&) {}
  void on_event(const Committed& committed);
  void on_event(const Stopped&) { is_running_ = false; }
  void step_later();
  void step(Instant now, Outbox& out);
  void later(Duration delay, std::function<void(Instant now, Outbox& out)> call);

  World& world_;
  const HostId host_;
  const uint64_t batch_;
  Disk live_, disk_;
  std::vector<uint64_t> progress_;
  std::unique_ptr<Member> member_;
  std::shared_ptr<bool> is_alive_ = std::make_shared<bool>(true);
  uint64_t synced_step_ = 0;
  bool is_joining_ = true;
  bool is_running_ = false;
  bool is_stepping_ = false;
  bool is_waiting_ = false;  // For a round.
  bool is_asking_ = false;
};

}  // namespace net
