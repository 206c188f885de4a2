#include "net/exchange/plan.h"

#include <algorithm>

namespace net {
namespace {

bool contains(ContributorMask mask, int64_t index) {
  return (mask >> index & 1) != 0;
}

}  // namespace

Plan make_direct_plan(int64_t chunk_count, int64_t contributor_count, uint32_t attempt) {
  CHECK(contributor_count >= 1 && contributor_count <= kMembersMax, "{}", contributor_count);
  Plan plan;
  plan.owners.resize(size_t(chunk_count));
  plan.attempts.assign(size_t(chunk_count), attempt);
  for (int64_t chunk = 0; chunk < chunk_count; ++chunk) {
    plan.owners[size_t(chunk)] = uint8_t(chunk % contributor_count);
  }
  return plan;
}

std::vector<Reown::Move> move_chunks(const Plan& plan, int64_t contributor_count,
                                     ContributorMask excluded) {
  std::vector<uint8_t> remaining;
  for (int64_t index = 0; index < contributor_count; ++index) {
    if (!contains(excluded, index)) remaining.push_back(uint8_t(index));
  }
  CHECK(!remaining.empty(), "nobody is left of {} contributors", contributor_count);
  std::vector<Reown::Move> moves;
  for (size_t chunk = 0; chunk < plan.owners.size(); ++chunk) {
    if (!contains(excluded, plan.owners[chunk])) continue;
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
