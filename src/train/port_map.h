// Where a rented machine's port can be dialled from outside: providers put it into the environment
// of their containers. RunPod and Vast.ai both map ports by number,
//
//   RUNPOD_PUBLIC_IP=203.0.113.7  RUNPOD_TCP_PORT_29501=10345
//   PUBLIC_IPADDR=203.0.113.7     VAST_TCP_PORT_29501=10345
//
// and give equal numbers inside and outside to who asks for a port of 70000 or more, which does not
// exist: RUNPOD_TCP_PORT_70000=10345 is port 10345 on both sides.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "net/types.h"

namespace train {

using Environment = std::map<std::string, std::string>;
Environment process_environment();

struct PortMap {
  net::Endpoint listen;     // Where to listen.
  net::Endpoint advertise;  // Where others dial; an empty host: as the coordinator sees us.
  std::string source;       // The variable that told, or empty.
  std::string problem;      // What a person should know, or empty.
};

// For `node.advertise: auto`. With port 0 in `listen` the machine's port with equal numbers is
// taken, if there is one. What makes no sense in the environment is passed over.
PortMap map_port(const net::Endpoint& listen, const Environment& environment);

}  // namespace train
