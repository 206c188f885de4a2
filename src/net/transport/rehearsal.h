// A host whose traffic is held up as a slower and longer line would, see RehearsalOptions.
#pragma once

#include <memory>

#include "net/host.h"

namespace net {

// As Host::create, for options with a rehearsal.
std::unique_ptr<Host> make_rehearsal(const HostOptions& options, Machine& machine);

}  // namespace net
