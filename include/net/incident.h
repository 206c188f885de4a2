// What went wrong with whom, beside the lines in the log: strangers that were refused, nodes that
// were rejected, went, were lost or put out, each with its first cause. For metrics: nothing is
// decided by it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>

namespace net {

struct Incident {
  enum class Kind {
    kRefused,   // A connection, before it had proved anything. Told once in a while, with a count.
    kRejected,  // A node by the coordinator.
    kLeft,      // A member has said so.
    kLost,      // A member by its coordinator; or, said by a member, the coordinator.
    kExcluded,  // A member from a round, which goes on without it.
  };
  Kind kind = Kind::kRefused;
  std::string who;  // A node's name; of strangers, their network.
  std::string reason;
  int64_t count = 1;  // Of this kind so far, in this process, where not each is told.
};
const char* name_of(Incident::Kind kind);

// Called on the host's loop thread: it returns at once, and what it does is safe there. May be
// empty.
using OnIncident = std::function<void(Incident)>;

inline void tell(const OnIncident& on_incident, Incident incident) {
  if (on_incident) on_incident(std::move(incident));
}

}  // namespace net
