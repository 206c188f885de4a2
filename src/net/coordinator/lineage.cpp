#include "net/coordinator/lineage.h"

#include <algorithm>
#include <map>

#include "net/probe.h"

namespace net {
namespace {

struct Votes {
  int64_t count = 0;
  PeerId first = kNobody;
};

std::map<base::Digest, Votes> count_votes(std::span<const Claim> claims, uint64_t version) {
  std::map<base::Digest, Votes> votes;
  for (const Claim& claim : claims) {
    if (claim.state.version != version || claim.state.digest.is_zero()) continue;
    Votes& of_digest = votes[claim.state.digest];
    ++of_digest.count;
    of_digest.first = std::min(of_digest.first, claim.peer);
  }
  return votes;
}

}  // namespace

std::optional<FragmentState> elect_state(std::span<const Claim> claims) {
  std::optional<uint64_t> newest;
  for (const Claim& claim : claims) {
    if (claim.state.version == kNoVersion) continue;
    newest = std::max(newest.value_or(0), claim.state.version);
  }
  probe<"all who register were fetching the state">(!newest);
  if (!newest) return std::nullopt;
  FragmentState elected{.version = *newest, .digest = {}};
  Votes best;
  for (const auto& [digest, votes] : count_votes(claims, *newest)) {
    const bool is_tie = votes.count == best.count && votes.first < best.first;
    probe<"two states have equally many votes">(votes.count == best.count);
    if (votes.count <= best.count && !is_tie) continue;
    best = votes;
    elected.digest = digest;
  }
  return elected;
}

std::optional<base::Digest> majority_digest(std::span<const Claim> claims, uint64_t version) {
  const auto voter_count = std::ranges::count_if(
      claims, [&](const Claim& claim) { return claim.state.version == version; });
  for (const auto& [digest, votes] : count_votes(claims, version)) {
    if (2 * votes.count > voter_count) return digest;
  }
  return std::nullopt;
}

bool is_current(const FragmentState& have, const FragmentState& in_force) {
  if (have.version != in_force.version) return false;
  return have.digest.is_zero() || in_force.digest.is_zero() || have.digest == in_force.digest;
}

}  // namespace net
