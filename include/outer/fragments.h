// Which units belong to which fragment, when each fragment is synchronised, and how it is cut for
// the all-reduce: pure functions that every peer, and a coordinator without a model, computes
// alike.
#pragma once

#include <cstdint>
#include <vector>

#include "shard/layout.h"

namespace outer {

// A fragment's elements are those of its units, in the order of `units`, each without padding.
struct Fragment {
  std::vector<int64_t> units;
  int64_t element_count = 0;
};

// Strided over the blocks, as in Streaming DiLoCo (Douillard et al. 2025, arXiv 2501.18512,
// section 2.3). The embedding is the first fragment and the head the last one, because each is as
// large as several blocks, and block i goes to fragment 1 + i mod (P - 2): so the largest round is
// no larger than it must be. With fewer than three fragments block i goes to i mod P, beside
// embedding and head. No fragment is empty. Throws bad_input unless 1 <= count <= units.
std::vector<Fragment> make_fragments(const shard::Layout& layout, int64_t count);

// The fragments that are synchronised after `steps_done` inner steps. Fragment f comes at
// floor((f+1) * H / P) and every H steps from there; P=1: at every multiple of H. At steps_done ==
// steps_total (if not 0) all of them; at 0 none.
std::vector<int64_t> due_fragments(int64_t steps_done, int64_t inner_steps, int64_t fragment_count,
                                   int64_t steps_total);

// How many inner steps a fragment's round after `steps_done` steps is about: H, but for its first
// round where it comes earlier, and for the round at the end of a run.
int64_t steps_covered(int64_t steps_done, int64_t inner_steps, int64_t fragment_count,
                      int64_t fragment);

// A fragment is cut into chunks of this many elements (the last is shorter) for the all-reduce.
int64_t chunk_elements(int64_t fragment_elements);
int64_t chunk_count(int64_t fragment_elements);

}  // namespace outer
