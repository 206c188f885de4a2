// A member and its host behind one object for the trainer: commands from the trainer's thread,
// events in a queue.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "net/coordinator.h"
#include "net/host.h"
#include "net/member.h"

namespace net {

class Swarm {
 public:
  // Listens, starts the loop thread and dials the coordinator. `store` outlives the object. Throws
  // as Host::create.
  // `standby`: of the coordinator that this node becomes when the run has lost its own, or begins
  // here; none: it becomes none.
  static std::unique_ptr<Swarm> join(const HostOptions& host, const MemberOptions& member,
                                     FragmentStore& store, std::vector<FragmentState> states,
                                     uint64_t step,
                                     std::optional<CoordinatorOptions> standby = std::nullopt);
  virtual ~Swarm() =
      default;  // Leaves without a word, as a crash would; leave() first to be polite.

  // See net/member.h. All return at once, but for a withdrawal: after it nobody reads the local
  // parameters.
  virtual void ready(int64_t fragment, int64_t weight_tokens, uint64_t step) = 0;
  virtual void begin_fetch() = 0;
  virtual void synced(std::vector<FragmentState> states) = 0;
  virtual void applied(int64_t fragment, const FragmentState& state) = 0;
  virtual void progress(uint64_t step, float loss) = 0;
  virtual void need_samples(uint64_t count) = 0;
  // Returns when what this node coordinates is handed over, or cannot be soon.
  virtual void leave(const std::string& reason) = 0;

  // The next event, waiting for it up to `patience` (asleep, no CPU); nothing if none came.
  virtual std::optional<MemberEvent> wait(Duration patience) = 0;

  virtual int64_t bytes_sent() const = 0;
  virtual int64_t bytes_received() const = 0;
};

}  // namespace net
