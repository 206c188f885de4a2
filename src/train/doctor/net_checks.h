// Judgements of what others answered, and of time-outs over such a line.
#pragma once

#include <string>

#include "net/visit.h"
#include "train/check.h"
#include "train/port_map.h"
#include "train/run_config.h"

namespace train {

// `problem`: why there can be no listening; empty: there can.
Check check_listening(const net::Endpoint& listen, const std::string& problem);
// Of a visit to our own port by the address that others dial. A provider's router may not lead us
// back to ourselves, so that a failure says little.
Check check_own_port(const PortMap& map, const net::VisitFinding& finding);
Check check_coordinator(const net::Endpoint& coordinator, const net::VisitFinding& finding);
// What must be equal on all nodes, where the coordinator has told it.
Check check_shared_config(const RunConfig& config, const net::VisitFinding& finding);
Check check_dial_back(const net::VisitFinding& finding);
// `round_trip_seconds` to the coordinator and `round_seconds` of the longest round over this line;
// 0: not known.
Check check_time_outs_over(const SwarmConfig& swarm, double round_trip_seconds,
                           double round_seconds);

}  // namespace train
