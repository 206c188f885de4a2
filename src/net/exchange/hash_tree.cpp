#include "net/exchange/hash_tree.h"

#include <bit>

#include "base/error.h"

namespace net {
namespace {

base::Digest parent_of(const base::Digest& left, const base::Digest& right) {
  base::Sha256 hash;
  hash.update(std::as_bytes(std::span(left.bytes)));
  hash.update(std::as_bytes(std::span(right.bytes)));
  return hash.finish();
}

}  // namespace

HashTree::HashTree(std::span<const base::Digest> leaves) {
  CHECK(!leaves.empty(), "a tree without leaves");
  levels_.emplace_back(leaves.begin(), leaves.end());
  levels_.back().resize(std::bit_ceil(leaves.size()));
  while (levels_.back().size() > 1) {
    const std::vector<base::Digest>& below = levels_.back();
    std::vector<base::Digest> level;
    for (size_t i = 0; i < below.size(); i += 2) level.push_back(parent_of(below[i], below[i + 1]));
    levels_.push_back(std::move(level));
  }
}

std::vector<base::Digest> HashTree::path(int64_t leaf) const {
  std::vector<base::Digest> path;
  auto index = size_t(leaf);
  for (size_t level = 0; level + 1 < levels_.size(); ++level, index /= 2)
    path.push_back(levels_[level][index ^ 1]);
  return path;
}

int64_t path_length(int64_t leaf_count) {
  return std::bit_width(uint64_t(leaf_count - 1));
}

base::Digest root_of(base::Digest leaf, int64_t index, std::span<const base::Digest> path) {
  for (const base::Digest& other : path) {
    leaf = index % 2 == 0 ? parent_of(leaf, other) : parent_of(other, leaf);
    index /= 2;
  }
  return leaf;
}

}  // namespace net
