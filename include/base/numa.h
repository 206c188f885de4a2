// Where threads run and where their memory lies, on machines with several memory nodes (sockets).
// Everything here only makes a program faster: on a machine with one node, in a container that
// forbids it, nothing happens.
#pragma once

#include <memory>
#include <string>

namespace base {

// Of the machine, those included that the process may not use; at least 1.
int numa_node_count();

// The calling thread, and threads that it starts from now on, run on the processors of `node`, as
// far as the process may use them. Their new memory comes from there while there is some, as that
// is the kernel's rule where nobody asks for another (containers often may not ask). False (and
// nothing is changed) if that is not possible.
bool pin_thread_to_numa_node(int node);

// While it lives, the pages that the calling thread touches first come from all nodes in turn: for
// memory that all ranks use alike. Dies in the thread that made it, the last one made first.
class InterleavedMemory {
 public:
  InterleavedMemory();
  ~InterleavedMemory();
  InterleavedMemory(const InterleavedMemory&) = delete;
  InterleavedMemory& operator=(const InterleavedMemory&) = delete;

 private:
  struct Saved;
  std::unique_ptr<Saved> saved_;  // Null: nothing was changed.
};

// Of a PCI device ("0000:1a:00.0", any case); -1: unknown. The kernel lists them in
// `devices`.
int numa_node_of_pci_device(const std::string& address,
                            const std::string& devices = "/sys/bus/pci/devices");

}  // namespace base
