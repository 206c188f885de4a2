// A node's trainer and its numbers, small enough to check every one of them.
//
// The oracle: node i contributes 2^i * (chunk + 1) with weight 1000 + 2^i, and a number that only
// this piece of its work has. So a result says which work is in it, and everything that net says
// about it (contributors, weight, order, base) can be compared with that. A state is mixed from all
// results that made it, in their order: from its digest the history can be walked back, and no work
// may be in it twice. What does not fit goes to a list of violations.
#pragma once

#include <array>
#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "net/frozen.h"
#include "net/member.h"
#include "net/oracle.h"
#include "net/simulator.h"

namespace net {

inline constexpr size_t kNodesMax = 16;

struct TrainerOptions {
  int64_t fragment_count = 1;
  int64_t chunk_count = 6;
  int64_t block_count = 3;    // At most: each has elements.
  int64_t padding_bytes = 0;  // After each encoded part and block, to make them large.
  // After each result: how it is encoded may differ from how contributions are.
  int64_t result_padding_bytes = 0;
  int64_t block_padding_bytes = 0;  // More, after each block.
  int64_t results_kept = 4;         // Of so many rounds. 0: a node cannot replay either.
  // A trainer goes on for so many steps after it said a fragment ready, then waits for the round.
  uint64_t overlap_steps_max = 0;
  uint64_t steps_per_round = 5;
  uint64_t steps_total = 0;  // Then it leaves, with all of them in the state. 0: endless.
  Duration step_time = std::chrono::milliseconds(200);
  Duration apply_time = std::chrono::milliseconds(30);
  bool asks_for_samples = false;
  // Hears what members report, when they do.
  std::function<void(HostId host, const MemberEvent& event)> on_event;
  // Whatever coordinators the run has: each version is made once. (Not so where a run may go back.)
  bool has_one_history = false;
};

class FakeTrainer : public FragmentStore {
 public:
  struct Encoded;
  // What survives a crash.
  struct Checkpoint {
    uint64_t step = 0;
    std::vector<uint64_t> versions;             // Per fragment.
    std::vector<std::vector<uint64_t>> values;  // Per fragment and chunk.
    uint64_t heard = 0;                         // Samples that are handed out.
  };
  static Checkpoint fresh(const TrainerOptions& options);
  static base::Digest digest(const TrainerOptions& options, const Checkpoint& checkpoint,
                             int64_t fragment);

  FakeTrainer(World& world, HostId host, const TrainerOptions& options, Checkpoint checkpoint,
              Oracle& oracle);

  // The machine, as long as it lives. Made here, because the two need each other. `wrap` may put it
  // into another one.
  using Wrap = std::function<std::unique_ptr<Member>(std::unique_ptr<Member>)>;
  Member& make_member(const MemberOptions& options, const Wrap& wrap = {});

  int64_t fragment_count() const override { return options_.fragment_count; }
  int64_t chunk_count(int64_t) const override { return options_.chunk_count; }
  Bytes contribution(int64_t fragment, int64_t chunk) override;
  base::Digest contribution_root(int64_t fragment) const override {
    return frozen_[size_t(fragment)].root;
  }
  base::Result<void> check_contribution(int64_t fragment, int64_t chunk,
                                        std::span<const std::byte> encoded) const override;
  base::Result<void> check_result(int64_t fragment, int64_t chunk,
                                  std::span<const std::byte> encoded) const override;
  Mean reduce(int64_t fragment, int64_t chunk, std::span<const Part> parts) override;
  std::optional<Mean> repeat(int64_t fragment, uint64_t round, int64_t chunk,
                             std::span<const Part> parts) override;
  int64_t block_count(int64_t) const override;
  std::optional<StateBlock> read_block(int64_t fragment, int64_t block) override;
  base::Result<void> write_block(int64_t fragment, int64_t block,
                                 std::span<const std::byte> bytes) override;
  std::optional<std::vector<std::byte>> digests(int64_t fragment, uint64_t version) override;
  base::Result<std::vector<int64_t>> wrong_blocks(int64_t fragment, const FragmentState& expected,
                                                  std::span<const std::byte> digests) override;
  Cut cut(int64_t fragment) const override;
  int64_t replay_rounds_max(int64_t) const override { return options_.results_kept > 0 ? 8 : 0; }
  std::optional<PastChunk> past_chunk(int64_t fragment, uint64_t round, int64_t chunk) override;
  base::Result<void> replay_block(int64_t fragment, int64_t block, uint64_t round,
                                  std::span<const PastChunk> chunks) override;

  const Checkpoint& checkpoint() const { return checkpoint_; }
  std::vector<FragmentState> states() const;
  const std::vector<uint64_t>& versions() const { return live_.versions; }
  uint64_t version(int64_t fragment) const { return live_.versions[size_t(fragment)]; }
  bool is_active() const { return is_running_; }
  // All steps are made, if not all are in the state yet.
  bool is_at_end() const { return options_.steps_total > 0 && live_.step >= options_.steps_total; }
  bool is_done() const { return is_done_; }  // With all steps.
  int64_t catch_up_count() const { return catch_up_count_; }
  int64_t start_count() const { return start_count_; }
  uint64_t last_start_step() const { return last_start_step_; }
  PeerId peer() const { return peer_; }
  const std::optional<Stopped>& stopped() const { return stopped_; }
  const std::vector<Committed>& commits() const { return commits_; }
  uint64_t step() const { return live_.step; }
  bool contributes() const { return contributes_; }  // As the coordinator says.
  base::Digest digest(int64_t fragment) const { return digest(options_, live_, fragment); }

  // Faults and wishes.
  void spoil_state(int64_t fragment) { live_.values[size_t(fragment)][0] += 7777; }
  // The next blocks that it gives to others are wrong.
  void spoil_blocks(int64_t count) { spoiled_blocks_left_ = count; }
  void set_step_time(Duration step_time) { options_.step_time = step_time; }
  void spoil_contributions(int64_t count) {
    spoiled_left_ = count;
    was_spoiled_ |= count > 0;
  }
  // What it contributes from now on is so far from the others' that owners leave it out.
  void be_absurd() { is_absurd_ = was_spoiled_ = true; }
  // Sums that it makes are wrong, for all alike; or what it says that others' parts make.
  void lie_about_sums(bool lies) { lies_about_sums_ = lies; }
  void lie_about_repeats(bool lies) { lies_about_repeats_ = lies; }
  int64_t repeat_count() const { return repeat_count_; }
  // Makes a result or a block of state wrong, in a way that its receiver cannot see.
  static void falsify(std::vector<std::byte>& payload, uint32_t chunk, uint64_t salt);
  // Takes back what it said, whatever was made of it meanwhile.
  void withdraw();
  void set_weight(int64_t weight_tokens) { weight_ = weight_tokens; }
  void leave(const std::string& reason);

 private:
  void handle(MemberEvent event);
  void handle_next();
  void on_catch_up_needed();
  void on_fetched(const Fetched& fetched);
  void on_started(const Started& started);
  void on_committed(const Committed& committed);
  void check_results(const Committed& committed);
  void check_result(const Committed& committed, size_t chunk, const Encoded& sum);
  static void mix(uint64_t& value, const Encoded& sum);
  void ask_for_samples(Instant now, Outbox& out);
  std::span<uint64_t> values_of_block(int64_t fragment, int64_t block);
  static std::vector<base::Digest> block_digests(const TrainerOptions& options,
                                                 const Checkpoint& checkpoint, int64_t fragment);
  void freeze(size_t fragment);
  bool is_held_up() const;
  void step();
  bool is_all_synced() const;
  void later(Duration delay, std::function<void(Instant now, Outbox& out)> call);
  uint64_t digest_word(int64_t fragment) const;
  std::string where(int64_t fragment, uint64_t round) const;

  World& world_;
  const HostId host_;
  TrainerOptions options_;
  Oracle& oracle_;
  Checkpoint live_;
  Checkpoint checkpoint_;
  std::unique_ptr<Member> member_;
  std::deque<MemberEvent> events_;
  int64_t postponed_count_ = 0;  // Of them, that were due and had to wait.
  std::shared_ptr<bool> is_alive_ = std::make_shared<bool>(true);

  int64_t weight_;
  std::vector<bool> is_waiting_;            // Said ready; no event yet.
  std::vector<SealedContribution> frozen_;  // Then: what it offers.
  std::vector<uint64_t> ready_at_;          // Then: the step,
  std::vector<uint64_t> serials_;           // and the number of this work.
  std::vector<bool> is_changing_;           // The state is being changed.
  std::vector<uint64_t> synced_at_;         // Step of the last round.
  bool is_running_ = false;
  bool is_stepping_ = false;
  bool is_done_ = false;
  int64_t waited_at_end_ = 0;  // Steps' time.
  int64_t held_count_ = 0;     // So many steps could not be made.
  int64_t spoiled_left_ = 0;
  int64_t spoiled_blocks_left_ = 0;
  std::vector<std::map<uint64_t, Committed>> past_;     // Per fragment.
  std::vector<std::vector<base::Digest>> found_wrong_;  // Of the blocks, when last verified.
  bool was_spoiled_ = false;
  bool is_absurd_ = false;
  bool lies_about_sums_ = false, lies_about_repeats_ = false;
  std::atomic<int64_t> repeat_count_ = 0;
  bool contributes_ = true;
  bool is_asking_ = false;
  PeerId peer_ = kNobody;
  int64_t catch_up_count_ = 0;
  int64_t start_count_ = 0;
  uint64_t last_start_step_ = 0;
  std::optional<Stopped> stopped_;
  std::vector<Committed> commits_;
};

int64_t weight_of(HostId host);

}  // namespace net
