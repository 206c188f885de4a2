// A hash tree over the chunks of a contribution. Its root is said before anybody sees a chunk, and
// every chunk comes with its path to the root: so whoever contributes gives the same bytes to
// everybody, and whoever sums can be held to them.
//
// Leaves are SHA-256 of the encoded chunks, in their order, filled up with zeros to a power of two;
// every other node is SHA-256 of its two children. The path of a leaf is the other child of each of
// its ancestors, from the lowest to the root's.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/hash.h"

namespace net {

class HashTree {
 public:
  // REQUIRES: at least one leaf.
  explicit HashTree(std::span<const base::Digest> leaves);
  const base::Digest& root() const { return levels_.back().front(); }
  std::vector<base::Digest> path(int64_t leaf) const;

 private:
  std::vector<std::vector<base::Digest>> levels_;  // The leaves are the first.
};

// How long paths are.
int64_t path_length(int64_t leaf_count);
base::Digest root_of(base::Digest leaf, int64_t index, std::span<const base::Digest> path);

}  // namespace net
