// The one copy of a fragment's committed state on this node, and how it is cut.
#pragma once

#include <algorithm>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "backend/device.h"
#include "base/math.h"
#include "net/message.h"
#include "outer/fragments.h"
#include "outer/outer_optimizer.h"
#include "outer/outer_state.h"
#include "outer/past_rounds.h"
#include "outer/round_findings.h"
#include "outer/state_summary.h"

namespace outer {

// A block of state for a joiner: so many parameters, then as many momenta; 1 MiB.
inline constexpr int64_t kBlockElements = base::kMiB / int64_t{2 * sizeof(float)};

struct Slice {
  int64_t first = 0;  // In elements of the fragment.
  int64_t count = 0;
};

inline Slice slice_at(int64_t index, int64_t slice_elements, int64_t total) {
  const int64_t first = index * slice_elements;
  return {.first = first, .count = std::min(slice_elements, total - first)};
}

inline std::span<float> part_of(std::span<float> values, Slice slice) {
  return values.subspan(size_t(slice.first), size_t(slice.count));
}

// A round whose outer step is done, and whose result is not yet in the node's own parameters.
struct UnmergedRound {
  std::vector<net::FragmentStore::Part> results;  // Per chunk, as the three below.
  std::vector<net::Bytes> ours;                   // What this node sent; empty: it sent nothing.
  std::vector<char> has_ours;                     // It was counted.
  std::vector<char> is_refused;
  bool is_short = false;
  OuterOptimizer optimizer;
};

// The mutex is held by the trainer's thread while it changes the fragment as a whole, and by the
// net thread for a chunk or a block at a time. A fragment has its own, so that one that is applied
// does not stop the traffic of another.
struct FragmentRecord {
  explicit FragmentRecord(int64_t results_kept) : past(results_kept) {}

  Fragment fragment;
  int64_t chunk_elements = 0;
  std::mutex mutex;
  std::unique_ptr<backend::Buffer> memory;  // Of the two.
  std::span<float> parameters;
  std::span<float> momentum;
  net::FragmentState state;
  std::vector<ChunkSquares> squares;         // Of that state.
  std::vector<ChunkSquares> squares_before;  // Of the one before; empty: it was not here.
  std::vector<base::Digest> pieces;  // Of it, or of the one that was last found to be wrong.
  // While digest and squares of that state are being made from parameters and momentum, which do
  // not change before they are there: the work, and the thread that is at it.
  std::unique_ptr<SummaryWork> summary;
  std::future<void> summary_thread;
  std::shared_future<base::Digest> digest;  // That of the last work, whether it is done or not.
  bool is_being_replaced = false;
  bool keeps_progress = false;     // While being replaced: local holds (local - outer).
  std::vector<net::Bytes> frozen;  // The contribution of the round to come, or open; or empty.
  base::Digest frozen_root;
  std::vector<char> was_asked_for;  // Per chunk of it: it has left this node, or been summed here.
  std::optional<UnmergedRound> unmerged;
  EffectsByChunk effects;  // Of the chunks that were summed here.
  PastRounds past;
  double reduce_seconds = 0;
  int64_t refused_chunks = 0;

  StateView view(int64_t index, uint64_t version) const {
    return {.version = version,
            .fragment = index,
            .chunk_elements = chunk_elements,
            .parameters = parameters,
            .momentum = momentum};
  }
  int64_t element_count() const { return fragment.element_count; }
  int64_t chunk_count() const { return base::div_ceil(element_count(), chunk_elements); }
  int64_t block_count() const { return base::div_ceil(element_count(), kBlockElements); }
  Slice chunk(int64_t index) const { return slice_at(index, chunk_elements, element_count()); }
  Slice block(int64_t index) const { return slice_at(index, kBlockElements, element_count()); }
};

}  // namespace outer
