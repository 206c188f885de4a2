// What can be asked of a coordinator or a node without training with them: for `atoll doctor`.
#pragma once

#include <optional>
#include <string>

#include "base/hash.h"
#include "net/host.h"

namespace net {

struct VisitOptions {
  HostOptions host;  // Where we listen meanwhile, and how links are secured.
  std::string run_name;
  uint64_t node_key = 1;  // Of the key in host.security; without one any but 0.
  Endpoint to;
  enum class Ask : uint8_t {
    // Of a coordinator: what must be equal on all nodes of the run. It takes us for a node with
    // another config and sends us away, so that nothing changes in the run.
    kConfig,
    // Is this a node of the run; with our own key: is it we?
    kIsNode,
    // Of a coordinator: dial us. It takes us for a node that joins, until we leave, at once.
    kDialBack,
  };
  Ask ask = Ask::kConfig;
  // Only kDialBack.
  base::Digest config;
  int64_t fragment_count = 1;
  Endpoint advertise;  // As MemberOptions::advertise.
  Duration patience = std::chrono::seconds(10);
};

struct VisitFinding {
  bool is_reached = false;     // A link stood, secured as the run wants it.
  double connect_seconds = 0;  // Until then: three round trips or more on a secured link.
  double answer_seconds = 0;   // From the question to the answer; 0: there was none.
  std::string reason;          // Why there is no answer, or what the answer says; may be empty.
  std::string shared_config;   // Of kConfig: the run's, as train::shared_config() writes it.
  std::optional<Endpoint> elsewhere;  // The run has another coordinator by now.
  bool is_node = false;               // Of kIsNode: it proved to be the one with our key.
  bool is_dialled_back = false;       // Of kDialBack.
};

// Blocks for no longer than about `patience`. Throws as Host::create, where we cannot listen.
VisitFinding visit(const VisitOptions& options);

}  // namespace net
