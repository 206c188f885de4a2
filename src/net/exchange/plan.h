// Who sums what in a round, as data: a plan is made by pure functions from what Open says, so that
// the machines that execute it (net/exchange/exchange.h) know nothing about why it is as it is.
//
// A plan is a tree for each chunk. Its root is the chunk's owner, who makes the result. Every other
// contributor has a parent, to whom it brings what it has: a leaf its contribution, whoever has
// children a *subtotal* of theirs and its own. Results go the same way back. Three kinds:
//
//   direct      Everybody is a leaf below the owner. Two hops, whatever the number of members, and
//               a dead sender costs only its own part.
//   two-level   Contributors have regions. In each one that is not the owner's, one of those who
//               can be dialled, another for each chunk, is the head: it sums its region, and one
//               subtotal and one result go the long way.
//   ring        A path that ends at the owner, in an order that Open gives: each node speaks with
//               two neighbours only.
//
// Who cannot be dialled is a leaf, and its parent can be dialled: no two that cannot be dialled
// need each other. A chunk that is moved by a Reown is summed directly from then on.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "net/message.h"

namespace net {

// Contributors by their index in Open::contributors, as bits.
using ContributorMask = uint64_t;

constexpr bool contains(ContributorMask mask, int64_t index) {
  return (mask >> index & 1) != 0;
}

// The tree of one chunk.
struct Tree {
  uint8_t owner = 0;
  std::vector<uint8_t> parents;  // By contributor, the owner's is itself; empty: all are leaves.

  bool is_direct() const { return parents.empty(); }
  uint8_t parent(int64_t index) const { return parents.empty() ? owner : parents[size_t(index)]; }
  // Its children, of so many contributors.
  ContributorMask children(int64_t index, int64_t contributor_count) const;
  // Neither the owner nor a leaf.
  bool is_inner(int64_t index) const;
  // Itself and all that bring it something.
  ContributorMask below(int64_t index, int64_t contributor_count) const;
  // Edges from there to the owner.
  int64_t depth(int64_t index) const;
};

struct Plan {
  std::vector<Tree> trees;         // Per chunk.
  std::vector<uint32_t> attempts;  // Per chunk: the attempt that gave it its present tree.
};

// Those who may own a chunk: who can be dialled. A single contributor has nobody to serve.
ContributorMask possible_owners(const std::vector<Contributor>& contributors);

// Owners of so many chunks, in proportion to the shares, by contributor, of those in `owners`;
// without shares in equal parts. Interleaved: all owners have work from the first chunk to the
// last. REQUIRES: there are owners.
std::vector<uint8_t> make_owners(int64_t chunk_count, ContributorMask owners,
                                 std::span<const double> shares = {});

// What Open says. A tree with whose owner it cannot be is direct.
Plan make_plan(const Open& open, uint32_t attempt);

// Which chunks must be summed in another way, when these are out and only those in `owners` are
// left to own: those of owners that are out move to others, and where somebody is out that is
// inside a tree its owner sums directly. The rest stays as it is, so nothing that was already
// summed is summed again. REQUIRES: somebody is left.
std::vector<Reown::Move> move_chunks(const Plan& plan, ContributorMask owners,
                                     ContributorMask out = 0);
// Those that are not summed directly yet, to be so by their owners.
std::vector<Reown::Move> make_direct(const Plan& plan);

// REQUIRES: the chunks exist.
void apply_moves(Plan& plan, const std::vector<Reown::Move>& moves, uint32_t attempt);

}  // namespace net
