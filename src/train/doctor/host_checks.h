// Judgements of one machine, each a pure function of what was found and what the run needs.
#pragma once

#include <cstdint>
#include <string>

#include "backend/inspect.h"
#include "train/check.h"
#include "train/doctor/host_facts.h"

namespace train {

Check check_processors(const HostFacts& facts, int64_t threads_wanted);
// `needed_bytes`: of the node in the host's memory; 0: not known.
Check check_memory(const HostMemory& memory, int64_t needed_bytes);
Check check_descriptors(const HostFacts& facts);
Check check_socket_buffers(const HostFacts& facts);
Check check_congestion_control(const HostFacts& facts);
// Of what ranks in one machine exchange beside the GPUs' own links.
Check check_shared_memory(const HostFacts& facts, int64_t gpus);
Check check_clock(const HostFacts& facts);
Check check_disk_space(const std::string& folder, int64_t free_bytes, int64_t needed_bytes);
// `checkpoint_bytes`: 0: not known.
Check check_disk_speed(const std::string& folder, double megabytes_per_second,
                       int64_t checkpoint_bytes);
// `device`: as node.device.
Checks check_gpus(const backend::CudaFacts& cuda, bool has_nvidia_driver,
                  const std::string& device);

}  // namespace train
