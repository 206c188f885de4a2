#include "net/coordinator/beginning.h"

#include <algorithm>

#include "base/hash.h"
#include "base/log.h"
#include "net/probe.h"

namespace net {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// What those who stand by wait longer than the one before them in the list.
constexpr Duration kTurn = milliseconds(500);
constexpr int64_t kTurnsMax = 8;
// Those who were called up must have answered by then. Others may have called up some of them.
constexpr Duration kAnswersWithin = seconds(3);
// After that two that go on calling at the same time must not do so for ever.
constexpr Duration kLaterMax = seconds(1);
// Time for others, so seldom that the run goes on where they do not use it.
constexpr Duration kOthersTurn = seconds(8);
constexpr Duration kGivesWayAgainMin = seconds(30);
constexpr Duration kGivesWayAgainMax = std::chrono::minutes(5);

}  // namespace

void Beginning::came(const MemberRecord& member, Instant now) {
  if (roster_.count() == 1) first_came_at_ = now;
  is_run_known_ |= !member.electorates.empty();
  if (member.remembers && !member.electorates.empty()) remembering_[member.node_key] = now;
}

void Beginning::has_begun() {
  remembering_.clear();
  may_since_.reset();
  called_up_at_.reset();
  failed_count_ = 0;
}

bool Beginning::give_way(Turn turn) {
  if (!turn.is_due(may_give_way_at_)) return false;
  gave_way_pause_ = std::clamp<Duration>(2 * gave_way_pause_, kGivesWayAgainMin, kGivesWayAgainMax);
  may_give_way_at_ = turn.now + gave_way_pause_;
  others_turn_until_ = turn.now + kOthersTurn;
  return true;
}

Beginning::Verdict Beginning::review(Turn turn) {
  if (roster_.count() == 0) return Verdict::kWait;
  if (options_.fail_over) {
    forget_log_if_alone(turn);
    if (const auto inherited = electors_.inheritance()) return take_over(*inherited, turn);
    if (is_run_known_) return Verdict::kRelease;  // Who knows of it is away just now.
    if (!is_home()) return Verdict::kWait;
  }
  return may_start(turn) ? Verdict::kBegin : Verdict::kWait;
}

bool Beginning::is_home() const {
  return std::ranges::any_of(roster_.all(), [](const auto& one) { return one.second.is_home; });
}

bool Beginning::may_be_welcome(const MemberRecord& member) const {
  return !options_.fail_over ||
         (member.is_home && !is_run_known_ && !electors_.inheritance().has_value());
}

// All that were expected; or enough after some grace; or, after a restart of the coordinator, most
// of those who were the run, with a moment for the rest.
bool Beginning::may_start(Turn turn) const {
  const bool are_enough = roster_.count() >= options_.members_min;
  const StateInForce::LastEpoch last = in_force_.last_epoch();
  const bool is_settled =
      last.here >= last.count || turn.is_due(first_came_at_ + 2 * options_.heartbeat_interval);
  const bool is_run_back = 2 * last.here > last.count && is_settled;
  const bool are_all = roster_.count() >= options_.start_members;
  const bool is_late = is_grace_over(turn);
  if (!are_all && !(are_enough && (is_late || is_run_back))) return false;
  probe<"the run starts again with most of its members">(!are_all && !is_late);
  probe<"the run starts without some that were expected">(!are_all && is_late);
  return true;
}

// With a quorum that remembers what it had promised, or with all of the last members, as nobody
// else can have promised anything: at once. Where most have been started again and some do not
// come, their disks are the best there is, after some grace for those who know more; or the
// operator says so.
Beginning::Verdict Beginning::take_over(const Inheritance& inherited, Turn turn) {
  const bool remembers = electors_.is_quorum_here(inherited, Here::kRemembers);
  const bool may = remembers || electors_.is_everybody_here(inherited, Here::kAny);
  const bool is_late = is_home() && is_grace_over(turn);
  const bool is_forced = options_.adopt_newer && is_late;
  const bool may_forget =
      is_late && electors_.is_quorum_here(inherited, Here::kAny) && !is_somebody_on_the_way(turn);
  if (!may) may_since_.reset();
  if (may && !may_since_) may_since_ = turn.now;
  if (called_up_at_ && turn.is_due(*called_up_at_ + kAnswersWithin)) {
    probe<"those who were called up do not answer">();
    ++failed_count_;
    called_up_at_.reset();
    may_since_.reset();
    return Verdict::kRelease;
  }
  if (!(may && is_our_turn(inherited, turn)) && !may_forget && !is_forced)
    return called_up_at_ ? Verdict::kWait : Verdict::kRelease;
  probe<"a run is taken over by those who had forgotten it">(!remembers);
  if (!called_up_at_) called_up_at_ = turn.now;
  const bool have_answered = electors_.is_quorum_here(inherited, Here::kFencedAndRemembers) ||
                             electors_.is_everybody_here(inherited, Here::kFenced) ||
                             (may_forget && electors_.is_quorum_here(inherited, Here::kFenced));
  return have_answered || is_forced ? Verdict::kBegin : Verdict::kCallUp;
}

// The first of the list that is here, and then the next ones.
bool Beginning::is_our_turn(const Inheritance& inherited, Turn turn) const {
  if (called_up_at_) return true;
  if (!turn.is_due(others_turn_until_)) return false;
  int64_t before = 0;
  for (const uint64_t voter : inherited.electorates.back().voters) {
    if (voter == options_.identity) break;
    before += roster_.has_node(voter);
  }
  Duration wait = std::min(before, kTurnsMax) * kTurn;
  if (failed_count_ > 0) {
    const double share = base::Random(options_.identity, failed_count_).uniform();
    wait += Duration(int64_t(share * double(kLaterMax.count())));
  }
  return turn.is_due(*may_since_ + wait);
}

// Somebody who knows more is alive, and was here.
bool Beginning::is_somebody_on_the_way(Turn turn) const {
  return std::ranges::any_of(remembering_, [&](const auto& entry) {
    return !roster_.has_node(entry.first) && !turn.is_due(entry.second + options_.start_grace);
  });
}

// Nobody whom the disk names has come, and nobody who was told of them has found them.
void Beginning::forget_log_if_alone(Turn turn) {
  if (is_run_known_ || !electors_.inheritance()) return;
  if (!turn.is_due(began_at_ + options_.start_grace)) return;
  probe<"nobody remembers the run that the disk knows">();
  base::log_warning("none of the run's last members has come: the run begins anew");
  electors_.forget_log();
}

}  // namespace net
