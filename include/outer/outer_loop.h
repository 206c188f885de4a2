// DiLoCo as the trainer sees it: after each inner step it says so, and now and then that call takes
// part in rounds, which change the local parameters.
//
// A due fragment's contribution is frozen, the fragment is announced ready, and training goes on
// while its round runs. At the first step boundary at which the commit is here, the outer step is
// taken; at the first one that is also overlap_steps (tau) after the announcement, its result is
// merged into the local parameters. A call waits only
//   - overlap_steps_max steps after a fragment was announced, until its round is over,
//   - where a fragment is due again whose round is still open, and
//   - at the end of the run, until all is synchronised.
// With tau = tau_max = 0 that is blocking DiLoCo: the call returns when the round is over.
//
// What happens otherwise:
//   - The round was closed without us: its result is merged by rebasing (our progress is kept for
//     the next round), and we jump to the global step.
//   - We are behind or our digest differs: the committed state is fetched from a peer and verified;
//     own progress since the last commit is kept.
//   - Our parameters are not finite: we take part without weight and go on from the result.
//   - The coordinator is lost for good: the outcome says so, and the caller saves and exits. After
//     the last step the others have most likely finished: that ends the wait for the last rounds.
//   - The coordinator is lost, or we are to stop, while the state is being fetched: there is
//     nothing whole to save. resource_lost is thrown; the node goes on from its last checkpoint.
#pragma once

#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "net/swarm.h"
#include "outer/config.h"
#include "outer/outer_state.h"

namespace outer {

// One `round` line of metrics.jsonl.
struct RoundReport {
  uint64_t round = 0;
  int64_t fragment = 0;
  uint64_t epoch = 0;
  uint64_t step = 0;
  std::vector<net::PeerId> members;
  int64_t weight_tokens = 0;
  // Of outer parameters and momentum after it; made beside training.
  std::shared_future<base::Digest> digest;
  int64_t bytes_sent = 0, bytes_received = 0;
  // The local steps at which our contribution was frozen (that of the merge, if there was none) and
  // the result was merged.
  uint64_t begun_step = 0, applied_step = 0;
  double seconds = 0;  // Open to Commit.
  net::PlanKind plan = net::PlanKind::kDirect;
  double estimated_seconds = 0;  // Of `seconds`, by the coordinator; 0: it did not know.
  // The trainer stood still for so long: the three below and the waiting for the commit.
  double exposed_seconds = 0;
  double encode_seconds = 0;
  double wait_seconds = 0;
  double apply_seconds = 0;  // Outer step and merge.
  bool contributed = false;
  bool was_damaged = false;  // This node's parameters were not finite: it brought nothing.
  RoundFindings findings;
};

struct MembershipReport {
  uint64_t epoch = 0;
  std::vector<net::PeerId> members;
};

// The coordinator's words about us: metrics.jsonl has them too.
struct StandingReport {
  bool contributes = true;
  std::string reason;
};

struct StepOutcome {
  std::vector<RoundReport> rounds;
  std::vector<MembershipReport> memberships;
  std::vector<StandingReport> standings;
  // So many steps count as done; go on from there. Fewer than before, if the run is not as far as
  // we were when we were alone.
  std::optional<uint64_t> jump_to_step;
  uint64_t samples_void_below = 0;  // Of the run's data, what we had from before is not ours.
  // Answers to need_samples(): what is ours now; nothing (count 0) if it was void at once.
  std::vector<net::SamplesGranted> samples;
  std::optional<net::PeerId> peer;  // We are an active member again, under this number.
  std::optional<std::string> lost;  // The swarm is lost; save and exit with kResourceLost.
  bool has_merged = false;          // The local parameters have changed.
  // The committed state was fetched from a peer, or took the place of parameters of ours that were
  // not finite.
  bool state_replaced = false;
};

class OuterLoop {
 public:
  struct Options {
    OuterConfig config;
    int64_t steps_total = 0;
    uint64_t position = 0;  // Steps that this node has done.
    // How the run's shared config differs from ours, in lines for people.
    std::function<std::string(const std::string& shared_config)> config_differences;
    // No event at all for so long, while joining or in a round: the swarm is lost.
    net::Duration join_timeout = std::chrono::minutes(30);
    net::Duration round_patience = std::chrono::minutes(30);
  };
  // Arguments outlive the object.
  static std::unique_ptr<OuterLoop> create(const Options& options, OuterState& state,
                                           net::Swarm& swarm);
  virtual ~OuterLoop() = default;

  // Waits until the node is an active member, fetching state if it must. Returns where to start, or
  // nothing when stopped (there is then nothing to save). Throws resource_lost on a time-out,
  // bad_input when the coordinator rejects us. `stop_requested` is asked several times a second.
  struct Entry {
    net::PeerId peer = net::kNobody;
    uint64_t step = 0;
    uint64_t samples_void_below = 0;  // As in StepOutcome.
    // The local parameters are the swarm's; inner optimiser state from before does not fit.
    bool state_replaced = false;
    std::vector<MembershipReport> memberships;
    std::vector<StandingReport> standings;
  };
  virtual std::optional<Entry> join(bool has_local_progress,
                                    const std::function<bool()>& stop_requested) = 0;

  // After inner step number `steps_done` (counting from 1) which consumed `tokens`. Returns early
  // when a stop is requested; what was not synchronised is kept for the next round.
  virtual StepOutcome after_step(uint64_t steps_done, int64_t tokens, double loss,
                                 const std::function<bool()>& stop_requested) = 0;

  // Asks for samples of the run's data, see net/member.h; they come with the outcome of a later
  // call.
  virtual void need_samples(uint64_t count) = 0;
  // Waits for them, between two inner steps; what happens meanwhile is treated as in after_step().
  // Returns early when a stop is requested.
  virtual StepOutcome wait_for_samples(const std::function<bool()>& stop_requested) = 0;
  // Of the run's data, that are handed out as far as we have heard; for checkpoints.
  virtual uint64_t samples() const = 0;

  virtual void leave(const std::string& reason) = 0;

  // Contributions that are frozen in the state and whose rounds are not over, and rounds whose
  // results are there and not merged, for checkpoints.
  struct InFlight {
    int64_t fragment = 0;
    uint64_t step = 0;                   // After which the contribution was frozen.
    int64_t tokens = 0;                  // Its weight, as long as its round is not over.
    std::optional<uint64_t> merge_from;  // The result is there, to be merged from this step on.
  };
  virtual std::vector<InFlight> in_flight() const = 0;
  // Before join(), with the same contributions and results in the state. If the run has gone on
  // without us, contributions are taken for counted: most likely they had been sent when we ended.
  virtual void restore_in_flight(const std::vector<InFlight>& in_flight) = 0;
  // The step of the last commit that is in our state, for checkpoints.
  virtual uint64_t committed_step() const = 0;
  // Tokens of each fragment since its last commit, for checkpoints.
  virtual std::vector<int64_t> tokens_since_commit() const = 0;
  virtual void restore_tokens_since_commit(std::vector<int64_t> tokens) = 0;
};

}  // namespace outer
