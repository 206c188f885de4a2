#include "net/blame.h"

#include <algorithm>
#include <tuple>

namespace net {
namespace {

using Complaints = uint64_t Witness::*;

bool complains(const Witness& witness, Complaints of, PeerId peer) {
  return (witness.*of >> peer & 1) != 0;
}

// Complains of more than half of all others, and of more than one. Whom nobody can blame does not
// count: all wait for the results of owners that wait themselves, and that says nothing of a line.
template <class CanBeBlamed>
bool is_doubtful(const Witness& witness, Complaints of, std::span<const Witness> all,
                 const CanBeBlamed& can_be_blamed) {
  int64_t others = 0;
  int64_t named = 0;
  for (const Witness& other : all) {
    if (other.peer == witness.peer || !other.is_contributor) continue;
    ++others;
    named += can_be_blamed(other) && complains(witness, of, other.peer);
  }
  return named >= 2 && 2 * named > others;
}

auto rank(const Witness& witness, int64_t accusers) {
  return std::tuple(accusers, witness.offences, witness.came_as);
}

// The suspect of whom more than half of those who can judge complain; or else the one whose own
// complaints nobody shares.
template <class CanJudge, class CanBeBlamed>
const Witness* most_accused(std::span<const Witness> all, Complaints of, const CanJudge& can_judge,
                            const CanBeBlamed& can_be_blamed) {
  const Witness* worst = nullptr;
  int64_t worst_accusers = 0;
  for (const Witness& suspect : all) {
    if (!can_be_blamed(suspect)) continue;
    int64_t judges = 0;
    int64_t accusers = 0;
    for (const Witness& judge : all) {
      if (judge.peer == suspect.peer || !can_judge(judge)) continue;
      if (is_doubtful(judge, of, all, can_be_blamed)) continue;
      ++judges;
      accusers += complains(judge, of, suspect.peer);
    }
    if (2 * accusers <= judges) continue;
    if (worst && rank(suspect, accusers) <= rank(*worst, worst_accusers)) continue;
    worst = &suspect;
    worst_accusers = accusers;
  }
  if (worst) return worst;
  for (const Witness& judge : all) {
    if (!can_judge(judge) || !is_doubtful(judge, of, all, can_be_blamed)) continue;
    if (!worst || rank(judge, 0) > rank(*worst, 0)) worst = &judge;
  }
  return worst;
}

const Witness* stuck_itself(std::span<const Witness> all) {
  const auto undone = std::ranges::count(all, false, &Witness::is_done);
  const Witness* worst = nullptr;
  for (const Witness& one : all) {
    if (one.is_done || one.has_moved || (one.lacks_any && undone > 1)) continue;
    if (!worst || rank(one, 0) > rank(*worst, 0)) worst = &one;
  }
  return worst;
}

}  // namespace

std::optional<Blame> find_blame(std::span<const Witness> all) {
  const auto anybody = [](const Witness&) { return true; };
  const auto owner = [](const Witness& one) { return one.is_owner; };
  const auto contributor = [](const Witness& one) { return one.is_contributor; };
  const auto has_all_parts = [](const Witness& one) { return one.is_owner && !one.is_excused; };
  // Of two, each may be the one that cannot dial: their debts decide.
  if (all.size() > 2) {
    if (const auto* who = most_accused(all, &Witness::cannot_dial, anybody, contributor)) {
      return Blame{who->peer, is_doubtful(*who, &Witness::cannot_dial, all, contributor)
                                  ? "cannot dial most of the others"
                                  : "cannot be dialled by the others"};
    }
  }
  if (const auto* who = most_accused(all, &Witness::waits_for_contribution, owner, contributor)) {
    return Blame{who->peer, is_doubtful(*who, &Witness::waits_for_contribution, all, contributor)
                                ? "gets nothing from the others"
                                : "does not deliver its contribution"};
  }
  if (const auto* who = most_accused(all, &Witness::waits_for_result, anybody, has_all_parts)) {
    return Blame{who->peer, is_doubtful(*who, &Witness::waits_for_result, all, has_all_parts)
                                ? "gets no results from the others"
                                : "does not deliver its results"};
  }
  if (const auto* who = stuck_itself(all)) return Blame{who->peer, "does not finish the round"};
  return std::nullopt;
}

}  // namespace net
