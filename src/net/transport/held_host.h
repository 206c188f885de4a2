// A host that holds its traffic up: as a slower and longer line would (RehearsalOptions), or so
// that it does not fill the line that it has (HostOptions::uplink_bytes_per_second).
#pragma once

#include <memory>

#include "net/host.h"

namespace net {

// As Host::create, for options with one of the two.
std::unique_ptr<Host> make_held_host(const HostOptions& options, Machine& machine);

}  // namespace net
