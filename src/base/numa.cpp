// Where threads run and where their memory lies.
//
// libnuma says what the machine has. What changes something goes to the kernel instead: libnuma's
// own calls tell of a failure on stderr or not at all, and numa_run_on_node() gives a thread
// processors that somebody has taken from the process.
#include "base/numa.h"

#include <algorithm>
#include <cctype>
#include <fstream>
#include <mutex>
#include <numa.h>
#include <numaif.h>
#include <optional>
#include <utility>

namespace base {
namespace {

struct FreeBitmask {
  void operator()(bitmask* mask) const { numa_bitmask_free(mask); }
};
using Bitmask = std::unique_ptr<bitmask, FreeBitmask>;

// REQUIRES for everything below: without this, libnuma's other functions do anything.
bool is_supported() {
  return numa_available() >= 0;
}

struct MemoryPolicy {
  int mode = MPOL_DEFAULT;
  Bitmask nodes{numa_allocate_nodemask()};
};

// These two are about the calling thread. The kernel reads and writes one bit less than it is told.
bool set_policy(int mode, const bitmask& nodes) {
  return set_mempolicy(mode, nodes.maskp, nodes.size + 1) == 0;
}

std::optional<MemoryPolicy> current_policy() {
  MemoryPolicy policy;
  const bitmask& nodes = *policy.nodes;
  if (get_mempolicy(&policy.mode, nodes.maskp, nodes.size + 1, nullptr, 0) != 0) return {};
  return policy;
}

bool read_processors(int node, bitmask& processors) {
  static std::mutex mutex;  // libnuma keeps what it has read, and takes no lock for that.
  std::lock_guard lock(mutex);
  return numa_node_to_cpus(node, &processors) == 0;
}

// Those of the node that the calling thread may run on; null: none, or nobody knows.
Bitmask usable_processors(int node) {
  Bitmask of_node(numa_allocate_cpumask());
  Bitmask usable(numa_allocate_cpumask());
  if (!read_processors(node, *of_node) || numa_sched_getaffinity(0, usable.get()) < 0) return {};
  for (unsigned processor = 0; processor < usable->size; ++processor) {
    if (!numa_bitmask_isbitset(of_node.get(), processor)) {
      numa_bitmask_clearbit(usable.get(), processor);
    }
  }
  if (numa_bitmask_weight(usable.get()) == 0) return {};
  return usable;
}

}  // namespace

int numa_node_count() {
  return is_supported() ? std::max(1, numa_num_configured_nodes()) : 1;
}

bool pin_thread_to_numa_node(int node) {
  if (!is_supported() || node < 0 || node > numa_max_node()) return false;
  const Bitmask processors = usable_processors(node);
  return processors != nullptr && numa_sched_setaffinity(0, processors.get()) == 0;
}

struct InterleavedMemory::Saved {
  MemoryPolicy policy;
};

InterleavedMemory::InterleavedMemory() {
  if (!is_supported()) return;
  std::optional<MemoryPolicy> before = current_policy();
  if (!before || !set_policy(MPOL_INTERLEAVE, *numa_all_nodes_ptr)) return;
  saved_ = std::make_unique<Saved>(Saved{.policy = std::move(*before)});
}

InterleavedMemory::~InterleavedMemory() {
  if (saved_) set_policy(saved_->policy.mode, *saved_->policy.nodes);
}

int numa_node_of_pci_device(const std::string& address, const std::string& devices) {
  std::string folder = address;  // The kernel writes it in lower case, CUDA in upper case.
  std::transform(folder.begin(), folder.end(), folder.begin(),
                 [](unsigned char letter) { return char(std::tolower(letter)); });
  std::ifstream file(devices + "/" + folder + "/numa_node");
  int node = -1;
  if (!(file >> node) || !(file >> std::ws).eof() || node < 0) return -1;
  return node;
}

}  // namespace base
