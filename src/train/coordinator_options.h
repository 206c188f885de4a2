// What a run's config means to its coordinator, wherever that is.
#pragma once

#include "net/coordinator.h"
#include "train/run_config.h"

namespace train {

net::CoordinatorOptions coordinator_options(const RunConfig& config);
// By the names of swarm.plan.
net::CoordinatorOptions::Plan plan_of(const std::string& name);

}  // namespace train
