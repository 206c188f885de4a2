// Collectives between rank threads of one process that see each other's memory: the ranks of a CPU
// node, and several ranks on one GPU.
#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "backend/communicator.h"
#include "backend/device.h"
#include "backend/ops.h"

namespace backend {

struct InProcessRank {
  Device* device = nullptr;
  Ops* ops = nullptr;
};
// One per rank, in rank order; devices and operations outlive them. Sums are made in rank order.
// REQUIRES: 1 to kRanksMax ranks.
std::vector<std::unique_ptr<Communicator>> make_in_process_communicators(
    const std::vector<InProcessRank>& ranks, std::chrono::milliseconds timeout);

}  // namespace backend
