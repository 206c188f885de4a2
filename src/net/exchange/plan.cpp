#include "net/exchange/plan.h"

#include <algorithm>
#include <optional>

namespace net {
namespace {

std::vector<uint8_t> indexes_in(ContributorMask mask) {
  std::vector<uint8_t> indexes;
  for (int64_t index = 0; index < kMembersMax; ++index) {
    if (contains(mask, index)) indexes.push_back(uint8_t(index));
  }
  return indexes;
}

// Whose turn as a head it is moves on with each chunk that needs one of the region, and once more
// when all had theirs: all have the same work, and with each owner.
class Regions {
 public:
  Regions(const std::vector<uint8_t>& places, ContributorMask dialled) : places_(places) {
    heads_.resize(kMembersMax);
    turns_.resize(kMembersMax);
    for (const uint8_t index : indexes_in(dialled)) heads_[places[index]].push_back(index);
  }

  Tree next(uint8_t owner) {
    std::vector<uint8_t> head_of(heads_.size(), owner);
    for (size_t region = 0; region < heads_.size(); ++region) {
      const auto& heads = heads_[region];
      if (region == places_[owner] || heads.empty()) continue;
      const size_t turn = turns_[region]++;
      head_of[region] = heads[(turn + turn / heads.size()) % heads.size()];
    }
    Tree tree{.owner = owner, .parents = {}};
    for (size_t index = 0; index < places_.size(); ++index) {
      const uint8_t head = head_of[places_[index]];
      tree.parents.push_back(head == index ? owner : head);
    }
    return tree;
  }

 private:
  const std::vector<uint8_t>& places_;
  std::vector<std::vector<uint8_t>> heads_;  // By region: who can be one.
  std::vector<size_t> turns_;
};

// Who cannot be dialled brings what it has to the next one that can.
class Ring {
 public:
  Ring(const std::vector<uint8_t>& places, ContributorMask dialled) {
    std::vector<uint8_t> order(places.size());
    for (size_t index = 0; index < places.size(); ++index) order[places[index]] = uint8_t(index);
    next_.resize(places.size());
    for (size_t place = 0; place < order.size(); ++place) {
      size_t next = (place + 1) % order.size();
      while (!contains(dialled, order[next])) next = (next + 1) % order.size();
      next_[order[place]] = order[next];
    }
  }

  Tree next(uint8_t owner) const {
    Tree tree{.owner = owner, .parents = next_};
    tree.parents[owner] = owner;
    return tree;
  }

 private:
  std::vector<uint8_t> next_;
};

// A tree that is as good as direct is.
Tree simplified(Tree tree) {
  if (std::ranges::all_of(tree.parents, [&](uint8_t one) { return one == tree.owner; }))
    tree.parents.clear();
  return tree;
}

}  // namespace

ContributorMask Tree::children(int64_t index, int64_t contributor_count) const {
  ContributorMask mask = 0;
  if (is_direct() && index != owner) return 0;
  for (int64_t other = 0; other < contributor_count; ++other) {
    if (other != owner && parent(other) == index) mask |= ContributorMask{1} << other;
  }
  return mask;
}

bool Tree::is_inner(int64_t index) const {
  return index != owner && std::ranges::find(parents, uint8_t(index)) != parents.end();
}

int64_t Tree::depth(int64_t index) const {
  int64_t depth = 0;
  for (; index != owner; index = parent(index)) ++depth;
  return depth;
}

ContributorMask Tree::below(int64_t index, int64_t contributor_count) const {
  ContributorMask mask = 0;
  for (int64_t other = 0; other < contributor_count; ++other) {
    int64_t above = other;
    while (above != index && above != owner) above = parent(above);
    if (above == index) mask |= ContributorMask{1} << other;
  }
  return mask;
}

ContributorMask possible_owners(const std::vector<Contributor>& contributors) {
  if (contributors.size() == 1) return 1;
  ContributorMask owners = 0;
  for (size_t index = 0; index < contributors.size(); ++index) {
    const bool can_be_dialled = !contributors[index].data.host.empty();
    owners |= ContributorMask{can_be_dialled} << index;
  }
  return owners;
}

// The one that is farthest behind its share comes next; of equals the first.
std::vector<uint8_t> make_owners(int64_t chunk_count, ContributorMask owners,
                                 std::span<const double> shares) {
  const std::vector<uint8_t> indexes = indexes_in(owners);
  CHECK(!indexes.empty(), "nobody can own a chunk");
  const auto share_of = [&](uint8_t index) { return shares.empty() ? 1.0 : shares[index]; };
  double all = 0;
  for (const uint8_t index : indexes) all += share_of(index);
  std::vector<double> due(indexes.size(), 0.0);
  std::vector<uint8_t> plan;
  for (int64_t chunk = 0; chunk < chunk_count; ++chunk) {
    if (shares.empty() || all <= 0) {
      plan.push_back(indexes[size_t(chunk) % indexes.size()]);
      continue;
    }
    for (size_t i = 0; i < due.size(); ++i) due[i] += share_of(indexes[i]) / all;
    const auto next = std::ranges::max_element(due);
    *next -= 1;
    plan.push_back(indexes[size_t(next - due.begin())]);
  }
  return plan;
}

Plan make_plan(const Open& open, uint32_t attempt) {
  const ContributorMask dialled = possible_owners(open.contributors);
  const bool is_whole = open.places.size() == open.contributors.size();
  Plan plan;
  plan.attempts.assign(open.owners.size(), attempt);
  std::optional<Regions> regions;
  std::optional<Ring> ring;
  if (is_whole && open.plan == PlanKind::kTwoLevel) regions.emplace(open.places, dialled);
  if (is_whole && open.plan == PlanKind::kRing && dialled != 0) ring.emplace(open.places, dialled);
  for (const uint8_t owner : open.owners) {
    Tree tree{.owner = owner, .parents = {}};
    if (regions && contains(dialled, owner)) tree = regions->next(owner);
    if (ring && contains(dialled, owner)) tree = ring->next(owner);
    plan.trees.push_back(simplified(std::move(tree)));
  }
  return plan;
}

std::vector<Reown::Move> move_chunks(const Plan& plan, ContributorMask owners,
                                     ContributorMask out) {
  const std::vector<uint8_t> remaining = indexes_in(owners);
  CHECK(!remaining.empty(), "nobody can own a chunk");
  std::vector<Reown::Move> moves;
  size_t moved_count = 0;
  for (size_t chunk = 0; chunk < plan.trees.size(); ++chunk) {
    const Tree& tree = plan.trees[chunk];
    const auto is_out_inside = [&](uint8_t above) {
      return above != tree.owner && contains(out, above);
    };
    if (!contains(owners, tree.owner)) {
      const uint8_t owner = remaining[moved_count++ % remaining.size()];
      moves.push_back({.chunk = uint32_t(chunk), .owner = owner});
    } else if (std::ranges::any_of(tree.parents, is_out_inside)) {
      moves.push_back({.chunk = uint32_t(chunk), .owner = tree.owner});
    }
  }
  return moves;
}

std::vector<Reown::Move> make_direct(const Plan& plan) {
  std::vector<Reown::Move> moves;
  for (size_t chunk = 0; chunk < plan.trees.size(); ++chunk) {
    if (plan.trees[chunk].is_direct()) continue;
    moves.push_back({.chunk = uint32_t(chunk), .owner = plan.trees[chunk].owner});
  }
  return moves;
}

void apply_moves(Plan& plan, const std::vector<Reown::Move>& moves, uint32_t attempt) {
  for (const Reown::Move& move : moves) {
    plan.trees[move.chunk] = {.owner = move.owner, .parents = {}};
    plan.attempts[move.chunk] = attempt;
  }
}

}  // namespace net
