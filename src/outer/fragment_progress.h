// How far a fragment's synchronisation has come at this node:
//
//   (nothing) -- due: frozen and announced --> in flight -- commit: outer step --> stepped
//       ^                                                                             |
//       +------------------------ tau steps after it was begun: merged ---------------+
#pragma once

#include <cstdint>
#include <optional>

#include "outer/outer_loop.h"

namespace outer {

// A contribution that is frozen and announced; we wait for its round.
struct FragmentInFlight {
  uint64_t step = 0;         // The position at which it was frozen.
  int64_t tokens = 0;        // Its weight.
  bool is_damaged = false;   // It could not be made: zeros without weight.
  uint64_t made_for = 0;     // The version that its round makes.
  bool is_restored = false;  // From a checkpoint: what became of it since is not known.
  struct Times {             // In which the trainer stood still for it, in seconds.
    double encode = 0;
    double wait = 0;
  } times;
};

// A round that is committed, and whose result is not merged yet.
struct Stepped {
  uint64_t merge_from = 0;   // The step from which on it is to be merged.
  bool is_restored = false;  // From a checkpoint: its round is no news.
  RoundReport report;        // Complete but for the merge.
};

struct FragmentProgress {
  // Consumed since the last contribution that was in a round was frozen: the weight of the next.
  int64_t tokens = 0;
  uint64_t synced_step = 0;  // The position of its last synchronisation, with or without us.
  std::optional<FragmentInFlight> in_flight;
  std::optional<Stepped> stepped;
  bool must_tell = false;  // Applied is to be said of the last step, when its digest is there.
};

}  // namespace outer
