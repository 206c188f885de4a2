// The mean of the parts of a chunk, and how far one node's part may reach in it.
//
// A mean follows its largest part, so that one node with numbers a million times too large, broken
// or lying, would be the end of a run. Parts are therefore held against the median of their lengths
// (Euclidean norms), which no minority moves far: what is longer than `norm_max` times the median
// is shortened to that, and what is longer than norm_max times as much again has no weight at all.
#pragma once

#include <cstdint>
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

struct ChunkMean {
  net::FragmentStore::Mean mean;
  std::vector<double> reach;  // The factor of each part.
};
// As FragmentStore::reduce says, of `element_count` elements.
ChunkMean mean_of(std::span<const net::FragmentStore::Part> parts, int64_t element_count,
                  const CodecPair& codecs, const ReachRule& rule);

}  // namespace outer
