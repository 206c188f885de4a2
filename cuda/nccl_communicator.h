// Collectives between GPUs of one node, by NCCL.
#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "backend/communicator.h"

namespace cuda {

// One per rank, in rank order; rank r has the GPU devices[r], and no two have the same. The first
// one to be destroyed ends them all, within seconds whatever has happened; the others' calls then
// throw. Throws bad_input if NCCL cannot be had, resource_lost if it does not start in time.
// REQUIRES: 1 to kRanksMax devices.
std::vector<std::unique_ptr<backend::Communicator>> make_nccl_communicators(
    const std::vector<int>& devices, std::chrono::milliseconds timeout);

}  // namespace cuda
