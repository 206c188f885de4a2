// What is set is read back from the kernel, in threads of their own, so that the test program stays
// as it was. On any machine: with one node, every processor of the process is that node's. Where
// the kernel or a container forbids memory policies, nothing may change, and the rest is skipped.
#include "base/numa.h"

#include <climits>
#include <filesystem>
#include <fstream>
#include <functional>
#include <numa.h>
#include <numaif.h>
#include <sched.h>
#include <string>
#include <thread>
#include <vector>

#include "support/catch.h"
#include "support/temporary_folder.h"

using base::InterleavedMemory;
using base::pin_thread_to_numa_node;

namespace {

constexpr int kNodeLimit = 4096;  // More than any kernel has: it refuses masks that are too small.

using NodeMask = std::vector<unsigned long>;

struct Policy {
  int mode = -1;  // -1: the kernel does not tell.
  NodeMask nodes = NodeMask(kNodeLimit / 64);
  bool operator==(const Policy&) const = default;
};

Policy memory_policy() {
  Policy policy;
  get_mempolicy(&policy.mode, policy.nodes.data(), kNodeLimit + 1, nullptr, 0);
  return policy;
}

// Of the calling thread.
struct Placement {
  std::vector<int> processors;
  Policy policy = memory_policy();
  bool operator==(const Placement&) const = default;
};

Placement placement() {
  Placement result;
  cpu_set_t mask;
  CPU_ZERO(&mask);
  sched_getaffinity(0, sizeof mask, &mask);
  for (int i = 0; i < CPU_SETSIZE; ++i) {
    if (CPU_ISSET(i, &mask)) result.processors.push_back(i);
  }
  return result;
}

bool run_on(int processor) {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  CPU_SET(processor, &mask);
  return sched_setaffinity(0, sizeof mask, &mask) == 0;
}

// Assertions are for the main thread only: the body returns what they are about.
template <class Body>
auto in_thread(const Body& body) {
  decltype(body()) result{};
  std::thread([&] { result = body(); }).join();
  return result;
}

bool may_set_policies() {
  const bool may = numa_available() >= 0 &&
                   in_thread([] { return set_mempolicy(MPOL_DEFAULT, nullptr, 0) == 0; });
  if (!may) WARN("skipped: memory policies are forbidden here");
  return may;
}

}  // namespace

TEST_CASE("There is at least one memory node", "[numa]") {
  REQUIRE(base::numa_node_count() >= 1);
}

TEST_CASE("A pinned thread keeps to its node, and others stay where they are", "[numa]") {
  struct Result {
    bool is_pinned;
    Placement before, after, of_child;
  };
  const Placement of_main = placement();
  for (int node = 0; node < base::numa_node_count(); ++node) {
    const Result result = in_thread([&] {
      Result r{.is_pinned = false, .before = placement(), .after = {}, .of_child = {}};
      r.is_pinned = pin_thread_to_numa_node(node);
      r.after = placement();
      r.of_child = in_thread(placement);
      return r;
    });
    REQUIRE(placement() == of_main);
    REQUIRE(result.of_child == result.after);
    if (!result.is_pinned) {
      REQUIRE(result.after == result.before);
      continue;
    }
    std::vector<int> expected;  // Those of the node that the thread had, and no others.
    for (const int processor : result.before.processors) {
      if (numa_node_of_cpu(processor) == node) expected.push_back(processor);
    }
    REQUIRE(result.after.processors == expected);
    REQUIRE(result.after.policy == result.before.policy);
  }
}

TEST_CASE("A thread that may use one processor can be pinned to its node only", "[numa]") {
  struct Result {
    bool is_pinned;
    Placement before, after;
  };
  const int processor = placement().processors.at(0);
  const auto pin = [&](int node) {
    return in_thread([&] {
      if (!run_on(processor)) return Result{};
      Result r{.is_pinned = false, .before = placement(), .after = {}};
      r.is_pinned = pin_thread_to_numa_node(node);
      r.after = placement();
      return r;
    });
  };
  for (int node = 0; node < base::numa_node_count(); ++node) {
    const Result result = pin(node);
    REQUIRE(result.after.processors == std::vector<int>{processor});
    if (!result.is_pinned) REQUIRE(result.after == result.before);
  }
  if (numa_available() < 0) return;
  for (int node = 0; node < base::numa_node_count(); ++node) {
    REQUIRE(pin(node).is_pinned == (node == numa_node_of_cpu(processor)));
  }
}

TEST_CASE("Pinning to a node that does not exist changes nothing", "[numa]") {
  struct Result {
    bool is_pinned;
    Placement before, after;
  };
  for (const int node : {INT_MIN, -1, kNodeLimit, INT_MAX}) {
    const Result result = in_thread([&] {
      Result r{.is_pinned = true, .before = placement(), .after = {}};
      r.is_pinned = pin_thread_to_numa_node(node);
      r.after = placement();
      return r;
    });
    REQUIRE_FALSE(result.is_pinned);
    REQUIRE(result.after == result.before);
  }
}

TEST_CASE("Interleaving ends with the policy that was there before", "[numa]") {
  struct Result {
    Policy before, during, after;
  };
  const auto interleave = [](const std::function<void()>& prepare) {
    return in_thread([&] {
      prepare();
      Result r{.before = memory_policy(), .during = {}, .after = {}};
      {
        InterleavedMemory outer;
        { InterleavedMemory inner; }
        r.during = memory_policy();
      }
      r.after = memory_policy();
      return r;
    });
  };
  const Policy of_main = memory_policy();
  const auto nothing = [] {};
  const auto local = [] { set_mempolicy(MPOL_LOCAL, nullptr, 0); };
  for (const std::function<void()>& prepare :
       {std::function<void()>(nothing), std::function<void()>(local)}) {
    const Result result = interleave(prepare);
    REQUIRE(result.after == result.before);
    REQUIRE(memory_policy() == of_main);
  }
  if (!may_set_policies()) return;
  REQUIRE(interleave(nothing).during.mode == MPOL_INTERLEAVE);
  REQUIRE(interleave(local).before.mode != interleave(nothing).before.mode);
}

TEST_CASE("The node of a PCI device is what the kernel says, or unknown", "[numa]") {
  const test::TemporaryFolder devices;
  const std::string address = "0000:1a:00.0";
  std::filesystem::create_directory(devices.file(address));
  const auto node_if = [&](const std::string& content) {
    std::ofstream(devices.file(address) + "/numa_node") << content;
    return base::numa_node_of_pci_device(address, devices.path());
  };
  REQUIRE(base::numa_node_of_pci_device(address, devices.path()) == -1);  // No such file.
  REQUIRE(node_if("1\n") == 1);
  REQUIRE(base::numa_node_of_pci_device("0000:1A:00.0", devices.path()) == 1);
  REQUIRE(base::numa_node_of_pci_device("0000:1b:00.0", devices.path()) == -1);
  REQUIRE(base::numa_node_of_pci_device(address, devices.file("missing")) == -1);
  REQUIRE(node_if("0") == 0);
  for (const std::string garbage :
       {"-1\n", "", "\n", "node 1\n", "1 2\n", "1x\n", "-7\n", "99999999999999999999\n"}) {
    INFO(garbage);
    REQUIRE(node_if(garbage) == -1);
  }
  std::filesystem::remove(devices.file(address) + "/numa_node");
  std::filesystem::create_directory(devices.file(address) + "/numa_node");
  REQUIRE(base::numa_node_of_pci_device(address, devices.path()) == -1);
}
