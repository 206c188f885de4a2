#include "net/coordinator/blame.h"

#include <algorithm>
#include <tuple>

#include "net/probe.h"

namespace net {
namespace {

using Complaints = uint64_t Witness::*;

bool complains(const Witness& witness, Complaints of, PeerId peer) {
  return (witness.*of >> peer & 1) != 0;
}

// Complains of more than half of all others, and of more than one. Others that have an excuse do
// not count: to wait for them is no sign of anything.
template <class CanBeBlamed>
bool is_doubtful(const Witness& witness, Complaints of, std::span<const Witness> all,
                 const CanBeBlamed& can_be_blamed) {
  int64_t others = 0;
  int64_t named = 0;
  for (const Witness& other : all) {
    if (other.peer == witness.peer || !can_be_blamed(other)) continue;
    ++others;
    named += complains(witness, of, other.peer);
  }
  return named >= 2 && 2 * named > others;
}

auto rank(const Witness& witness, int64_t accusers) {
  return std::tuple(accusers, witness.offences, witness.came_as);
}

struct Accused {
  const Witness* who = nullptr;
  bool by_others = false;
};

// The suspect of whom more than half of those who can judge complain; or else the one whose own
// complaints nobody shares.
template <class CanJudge, class CanBeBlamed>
Accused most_accused(std::span<const Witness> all, Complaints of, const CanJudge& can_judge,
                     const CanBeBlamed& can_be_blamed) {
  const auto doubtful = [&](const Witness& judge) {
    return is_doubtful(judge, of, all, can_be_blamed);
  };
  const Witness* worst = nullptr;
  int64_t worst_accusers = 0;
  for (const Witness& suspect : all) {
    if (!can_be_blamed(suspect)) continue;
    int64_t judges = 0;
    int64_t accusers = 0;
    for (const Witness& judge : all) {
      if (judge.peer == suspect.peer || !can_judge(judge) || doubtful(judge)) continue;
      ++judges;
      accusers += complains(judge, of, suspect.peer);
    }
    if (2 * accusers <= judges) continue;
    probe<"several are to blame">(worst != nullptr);
    if (worst && rank(suspect, accusers) <= rank(*worst, worst_accusers)) continue;
    worst = &suspect;
    worst_accusers = accusers;
  }
  if (worst) return {.who = worst, .by_others = true};
  for (const Witness& judge : all) {
    if (!can_judge(judge) || !doubtful(judge)) continue;
    if (!worst || rank(judge, 0) > rank(*worst, 0)) worst = &judge;
  }
  return {.who = worst, .by_others = false};
}

const Witness* stuck_itself(std::span<const Witness> all) {
  const auto undone = std::ranges::count(all, false, &Witness::is_done);
  const Witness* worst = nullptr;
  for (const Witness& one : all) {
    if (one.is_done || one.has_moved || (one.lacks_any && undone > 1)) continue;
    if (!worst || rank(one, 0) > rank(*worst, 0)) worst = &one;
  }
  probe<"a member that lacks nothing does not finish">(worst != nullptr);
  return worst;
}

}  // namespace

std::optional<Blame> find_blame(std::span<const Witness> all) {
  const auto anybody = [](const Witness&) { return true; };
  const auto owner = [](const Witness& one) { return one.is_owner; };
  const auto contributor = [](const Witness& one) { return one.is_contributor; };
  const auto has_all_parts = [](const Witness& one) { return one.is_owner && !one.is_excused; };
  const auto say = [](const Accused& accused, const char* of_others, const char* of_itself) {
    return Blame{accused.who->peer, accused.by_others ? of_others : of_itself};
  };
  // Of two, each may be the one that cannot dial: their debts decide.
  if (all.size() > 2) {
    const Accused undialled = most_accused(all, &Witness::cannot_dial, anybody, contributor);
    probe<"most cannot dial a contributor">(undialled.who && undialled.by_others);
    probe<"a member cannot dial most others">(undialled.who && !undialled.by_others);
    if (undialled.who)
      return say(undialled, "cannot be dialled by the others", "cannot dial most of the others");
  }
  const Accused mute = most_accused(all, &Witness::waits_for_contribution, owner, contributor);
  probe<"a contributor delivers nothing">(mute.who && mute.by_others);
  probe<"an owner gets nothing from most others">(mute.who && !mute.by_others);
  if (mute.who)
    return say(mute, "does not deliver its contribution", "gets nothing from the others");
  const Accused late = most_accused(all, &Witness::waits_for_result, anybody, has_all_parts);
  probe<"an owner delivers no results">(late.who && late.by_others);
  probe<"a member gets no results from most others">(late.who && !late.by_others);
  if (late.who) return say(late, "does not deliver its results", "gets no results from the others");
  if (const auto* who = stuck_itself(all)) return Blame{who->peer, "does not finish the round"};
  return std::nullopt;
}

}  // namespace net
