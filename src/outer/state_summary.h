// What is to be known of a new state of a fragment: the digest that names it, and the lengths of
// its chunks. All of it is put together from pieces, and whoever has time takes the next one.
//
// The digest: fixed pieces of 1 MiB are hashed by themselves, and it is the hash of (version,
// fragment index, digests of the pieces of the parameters, of the momentum).
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <future>
#include <span>
#include <vector>

#include "base/hash.h"
#include "base/math.h"

namespace outer {

struct StateView {
  uint64_t version = 0;
  int64_t fragment = 0;
  int64_t chunk_elements = 0;
  std::span<const float> parameters;
  std::span<const float> momentum;
};
// Of a chunk's numbers, the sums of their squares.
struct ChunkSquares {
  double parameters = 0, momentum = 0;
};
struct StateSummary {
  base::Digest digest;
  std::vector<base::Digest> pieces;   // Of the parameters, then of the momentum.
  std::vector<ChunkSquares> squares;  // Per chunk.
};
inline constexpr int64_t kPieceFloats = base::kMiB / int64_t{sizeof(float)};
// Of the state of a fragment whose pieces have these digests.
base::Digest digest_of_pieces(uint64_t version, int64_t fragment,
                              std::span<const base::Digest> pieces);

// Threads: any, several at once.
class SummaryWork {
 public:
  // What the view shows stays as it is until all is done, and outlives the object.
  explicit SummaryWork(const StateView& state);

  // Takes one piece after the other until none is left; others may still be at one.
  void work();
  std::shared_future<base::Digest> digest() const { return digest_; }
  bool is_done() const {
    return digest_.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
  }
  // Until all is done. REQUIRES: somebody works.
  StateSummary wait() const {
    return {.digest = digest_.get(), .pieces = digests_, .squares = squares_};
  }

 private:
  int64_t item_count() const { return int64_t(digests_.size() + squares_.size()); }
  void make(int64_t item);
  void hash_piece(int64_t index);

  const StateView state_;
  std::vector<base::Digest> digests_;  // Of the pieces of the parameters, then of the momentum.
  std::vector<ChunkSquares> squares_;
  std::atomic<int64_t> next_ = 0, done_ = 0;
  std::promise<base::Digest> made_;
  const std::shared_future<base::Digest> digest_ = made_.get_future().share();
};

}  // namespace outer
