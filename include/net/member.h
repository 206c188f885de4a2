// A node's side of the swarm: registers, catches up, and takes part in rounds. A machine, see
// net/machine.h.
//
// The trainer drives it with the commands below and hears back through events. What the trainer
// promises: from ready() to the round's event the fragment's contribution is frozen in the store;
// between CatchUpNeeded and begin_fetch() it has brought the store into a state in which blocks may
// be written; it answers Committed with applied(), each CatchUpNeeded with one begin_fetch(), and
// Fetched with synced() or another begin_fetch(). Commands and events may cross on their way: a
// ready() that comes between Committed and applied(), or after CatchUpNeeded, is void.
//
// - Exchange of a round: a contributor serves its chunks on demand; whoever sums a chunk by the
//   round's plan (net/exchange/plan.h) wants its parts, reduces them when all that are still in the
//   round have delivered, and serves what it made; every receiver wants all results. Nothing is
//   applied here.
// - A chunk that fails FragmentStore::check or its result's bookkeeping costs the sender its link
//   (it is asked again).
// - A lost coordinator: it is dialled again, and then the members of the last list, each of which
//   could have become the coordinator, over and over with growing pauses (0.2 s to 2 s; to 5 s
//   where there is no list) for `coordinator_patience`. Open rounds are dropped, but for those that
//   are complete here: the next coordinator decides about them. Readiness is told again, and
//   Started comes again: with no CatchUpNeeded before it, nothing was lost. After that: Stopped.
//
// docs/rounds.md tells the whole story.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "net/fragment_store.h"
#include "net/incident.h"
#include "net/machine.h"
#include "net/run_log.h"

namespace net {

struct MemberOptions {
  std::string run_name;
  base::Digest config;
  std::string node_name;
  uint64_t node_key = 0;
  Endpoint coordinator;
  // In a run with a list of keys: the coordinator's key, and what our host's links are held
  // against, which is what the coordinator tells and its own key.
  std::optional<NodeId> coordinator_key;
  std::shared_ptr<AllowedKeys> allowed;
  // Where others reach my data port; empty host: the address the coordinator sees.
  Endpoint advertise;
  // Where a coordinator that we could find in our own process would be dialled: net/peer.h. The
  // first one is always that; none: there is none.
  std::vector<Endpoint> own;
  OnIncident on_incident;  // The coordinator is lost.
  RunLog log;              // What the process before this one has kept.
  KeepLog keep_log;        // May be empty.
  uint64_t samples = 0;    // Of the run's data, that are handed out as far as we have heard.
  Duration coordinator_patience = std::chrono::seconds(60);
  // Without any block of a state that we need: Stopped. More than the 30 s for which a donor whose
  // state is just changing may keep us waiting.
  Duration fetch_patience = std::chrono::seconds(300);
  // Per peer and kind of chunk (and fragment), until the size of the chunks and the rate are known.
  int64_t wants_in_flight_max = 16;
  // What is then asked for at a time, of all peers together: bounds memory and keeps the pipe full.
  int64_t window_bytes_max = 128 * 1024 * 1024;
  // Connections to fetch from one peer; how many it takes is measured.
  int64_t links_per_peer_max = 16;
  // Of the time in which no chunk of a round is sent, those who catch up have no more than this:
  // above 0, at most 1.
  double gap_share = 0.75;
  // Of every committed round that we contributed to: sums of others that we make again, to see
  // whether they are right (net/exchange/audit.h).
  int64_t audit_chunks = 0;
  // Who has not shown his part of such a sum after so long is named.
  Duration audit_patience = std::chrono::seconds(30);
};

// Events, in the order in which they happened.

// Our state is not the one in force. What was said by ready() is forgotten.
struct CatchUpNeeded {
  std::vector<int64_t> fragments;
};
// All fragments, as they must be now; a zero digest has nothing to be compared with.
struct Fetched {
  std::vector<FragmentState> expected;
};
struct Started {
  PeerId peer = kNobody;
  uint64_t step = 0;
  uint64_t samples_void_below = 0;  // Those that we hold below it are not ours any more.
};
// Samples [first, first + count) of the run's data are ours. All before its end are handed out; a
// count of 0 says only that.
struct SamplesGranted {
  uint64_t first = 0;
  uint64_t count = 0;
};
struct MembershipChanged {
  uint64_t epoch = 0;
  std::vector<PeerId> members;
};
struct Committed {
  int64_t fragment = 0;
  uint64_t round = 0;  // The version that applying makes.
  uint32_t term = 0;   // Of the coordinator that opened it.
  uint64_t epoch = 0;
  uint64_t step = 0;  // The global step of the synchronisation.
  // We were one of its contributors. Per chunk: our part was there, summed or judged to be out;
  // where it was not, our pseudo-gradient is still unsent.
  bool contributed = false;
  std::vector<char> has_ours;
  std::vector<PeerId> members;  // Contributors that are in at least one chunk.
  int64_t weight_tokens = 0;    // Their sum.
  // Per chunk: encoded bytes at `offset`; weight as arrived.
  std::vector<FragmentStore::Part> results;
  base::Digest result_digest;
  int64_t bytes_sent = 0, bytes_received = 0;  // Of this round, frames included.
  double seconds = 0;                          // From Open to Commit.
  PlanKind plan = PlanKind::kDirect;           // As it was opened.
  double estimated_seconds = 0;                // By the coordinator; 0: it did not know.
};
// How we stand with the coordinator has changed, in its words.
struct StandingChanged {
  bool contributes = true;
  std::string reason;
};
struct Stopped {  // The end: rejected, or the coordinator is lost.
  std::string reason;
  bool restart_makes_sense = true;  // False: rejected.
  std::string shared_config;        // The run's, where ours differs.
};
using MemberEvent = std::variant<CatchUpNeeded, Fetched, Started, SamplesGranted, MembershipChanged,
                                 StandingChanged, Committed, Stopped>;

class Member : public Machine {
 public:
  // `store` outlives the object. `states` and the step of the last commit that is in them are what
  // the node has (from its checkpoint, or version 0 and 0). `on_event` is called from inside the
  // machine's calls; it must not call back into it.
  static std::unique_ptr<Member> create(const MemberOptions& options, FragmentStore& store,
                                        std::vector<FragmentState> states, uint64_t committed_step,
                                        std::function<void(MemberEvent)> on_event);

  // Commands of the trainer. A negative weight takes a ready() back; the fragment's round, if it is
  // open, goes on without us.
  virtual void ready(int64_t fragment, int64_t weight_tokens, uint64_t step, Instant now,
                     Outbox& out) = 0;
  virtual void begin_fetch(Instant now, Outbox& out) = 0;
  virtual void synced(std::vector<FragmentState> states, Instant now, Outbox& out) = 0;
  virtual void applied(int64_t fragment, const FragmentState& state, Instant now, Outbox& out) = 0;
  virtual void progress(uint64_t step, float loss) = 0;
  // Asks for samples, from 1 to kSamplesAskedMax. One SamplesGranted of this count follows, however
  // often the coordinator is lost in between; until then there is nothing more to ask.
  virtual void need_samples(uint64_t count, Instant now, Outbox& out) = 0;
  virtual void leave(const std::string& reason, Instant now, Outbox& out) = 0;

  // Where others may find the coordinator that we are registered with: where the run's list has it,
  // and where we found it, as either may be of no use any more. Empty: we are with none.
  virtual std::vector<Redirect> followed() const = 0;
};

}  // namespace net
