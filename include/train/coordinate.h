// The meeting point alone: `atoll coordinate`.
#pragma once

#include <functional>

#include "net/coordinator.h"
#include "net/types.h"
#include "train/run_config.h"

namespace train {

// Serves until everybody who ever trained has finished, or `stop_requested`. `on_listening` gets
// the address once it is bound.
// Throws bad_input where it cannot listen, or what secures its links is not there.
net::CoordinatorReport run_coordinator(
    const RunConfig& config, base::Storage& storage, const net::Endpoint& listen,
    const std::function<void(const net::Endpoint&)>& on_listening,
    const std::function<bool()>& stop_requested);

}  // namespace train
