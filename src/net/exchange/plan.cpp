#include "net/exchange/plan.h"

#include <algorithm>

namespace net {
namespace {

bool contains(ContributorMask mask, int64_t index) {
  return (mask >> index & 1) != 0;
}

std::vector<uint8_t> indexes_in(ContributorMask mask) {
  std::vector<uint8_t> indexes;
  for (int64_t index = 0; index < kMembersMax; ++index) {
    if (contains(mask, index)) indexes.push_back(uint8_t(index));
  }
  CHECK(!indexes.empty(), "nobody can own a chunk");
  return indexes;
}

}  // namespace

ContributorMask possible_owners(const std::vector<Contributor>& contributors) {
  if (contributors.size() == 1) return 1;
  ContributorMask owners = 0;
  for (size_t index = 0; index < contributors.size(); ++index) {
    const bool can_be_dialled = !contributors[index].data.host.empty();
    owners |= ContributorMask{can_be_dialled} << index;
  }
  return owners;
}

Plan make_direct_plan(int64_t chunk_count, ContributorMask owners, uint32_t attempt) {
  const std::vector<uint8_t> indexes = indexes_in(owners);
  Plan plan;
  plan.owners.resize(size_t(chunk_count));
  plan.attempts.assign(size_t(chunk_count), attempt);
  for (size_t chunk = 0; chunk < plan.owners.size(); ++chunk)
    plan.owners[chunk] = indexes[chunk % indexes.size()];
  return plan;
}

std::vector<Reown::Move> move_chunks(const Plan& plan, ContributorMask owners) {
  const std::vector<uint8_t> remaining = indexes_in(owners);
  std::vector<Reown::Move> moves;
  for (size_t chunk = 0; chunk < plan.owners.size(); ++chunk) {
    if (contains(owners, plan.owners[chunk])) continue;
    const uint8_t owner = remaining[moves.size() % remaining.size()];
    moves.push_back({.chunk = uint32_t(chunk), .owner = owner});
  }
  return moves;
}

void apply_moves(Plan& plan, const std::vector<Reown::Move>& moves, uint32_t attempt) {
  for (const Reown::Move& move : moves) {
    plan.owners[move.chunk] = move.owner;
    plan.attempts[move.chunk] = attempt;
  }
}

}  // namespace net
