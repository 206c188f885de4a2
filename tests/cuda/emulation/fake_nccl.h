// NCCL's part in the emulation, and what can be made to go wrong in it.
#pragma once

#include <cstdint>

namespace emulation {

enum class Fault {
  kNone,
  kMissing,            // The library cannot be loaded.
  kStartFails,         // Making the rank's communicator fails.
  kStartNeverEnds,     // It never ends.
  kQueueingFails,      // The call for the collective fails.
  kQueueingNeverEnds,  // It stays in progress.
  kNeverEnds,          // The collective occupies the GPUs until it is aborted.
  kErrorLater,         // Likewise, and the communicator reports an error.
  kErrorAtEnd,         // It ends without a result, and the communicator reports an error.
  kFinalizeNeverEnds,
  kAbortNeverEnds,  // kNeverEnds, and the rank's abort does not return before set_fault().
};

// Of `rank`, in its collective `number` (counted from 0), where the fault is one of a collective's.
// Communicators may exist.
void set_fault(Fault fault, int rank = 0, int64_t number = 0);

// Communicators that were neither destroyed nor aborted.
int live_communicators();

}  // namespace emulation
