// The mean of the parts of a chunk, and what one node's part may do to it.
//
// A mean follows its largest part, so that one node with numbers a million times too large, broken
// or lying, would be the end of a run. There are two rules against that:
//
//   clipped   Parts are held against the median of their lengths (Euclidean norms), which no
//             minority moves far: what is longer than `norm_max` times the median is shortened to
//             that, and what is longer than norm_max times as much again has no weight at all.
//   trimmed   In each element by itself, the largest and the smallest numbers do not count.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "net/fragment_store.h"
#include "outer/codec.h"

namespace outer {

struct PartLength {
  double norm = 0;
  int64_t weight_tokens = 0;
};

struct ReachRule {
  double norm_max = 0;  // Times the median; 0: nothing is judged.
  // Nothing that is not longer than this is judged.
  double norm_floor = 0;

  // For each part the factor for its numbers: 1 as it is, below 1 shortened, 0 left out. Less than
  // half of the parts are below 1.
  //
  // Parts of norm 0 are not judged and have no voice. With fewer than three others there is no
  // median, and nothing is judged. Who trained on more tokens than the median may have gone farther
  // in proportion, at most norm_max times: nodes that have just come are no measure for one that
  // has trained for a whole round.
  std::vector<double> factors(std::span<const PartLength> parts) const;
};

struct MeanRule {
  ReachRule reach;
  bool has_floor = false;  // reach.norm_floor is the length of the parameters.
  double trim_share = 0;   // Of the parts, at either end of each element's numbers; 0: none.

  // How many numbers do not count at either end, of `voices` parts with a weight: their share,
  // rounded down, at least one, and less than half of all. None of fewer than three.
  int64_t trimmed_count(int64_t voices) const;
};

// What a part is in the mean of a chunk. All sums are over the chunk's elements, in double and in
// one order.
struct PartEffect {
  net::PeerId peer = net::kNobody;
  int64_t weight_tokens = 0;
  bool is_subtotal = false;  // Several contributions, of which nothing can be said one by one.
  double reach = 1;          // Its factor.
  double squares = 0;        // Of its numbers.
  double momentum = 0;       // Its numbers times the outer momentum.
  double mean = 0;  // What of it is in the mean, times the mean: these add up to mean_squares.
};
struct ChunkEffects {
  std::vector<PartEffect> parts;
  double mean_squares = 0;  // Of the mean before it is encoded.
  double momentum_squares = 0;
};

struct ChunkMean {
  net::FragmentStore::Mean mean;
  ChunkEffects effects;
};
// Writes the outer momentum of a piece of the chunk.
using ReadMomentum = std::function<void(Piece piece, std::span<float> momentum)>;
// As FragmentStore::reduce says, of `element_count` elements. Without a momentum the effects are
// not made. The bytes do not depend on it.
ChunkMean mean_of(std::span<const net::FragmentStore::Part> parts, int64_t element_count,
                  const CodecPair& codecs, const MeanRule& rule, const ReadMomentum& momentum = {});

}  // namespace outer
