// Chooses how a round's chunks come together (net/exchange/plan.h): by the operator's word, or
// whatever should be quickest over the ways that members have measured.
//
//   seconds = max(what each sends / its rate, what each receives / its rate,
//                 what goes over each way / its rate)  +  the longest sum of round trips
//                                                         from a leaf to its owner
//
// over the plan's own trees. Rates are those of net/coordinator/path_table.h, so that a plan that
// uses other ways than the last ones is not thought better than it is. Another one is taken only if
// it should take a fifth less. Where something is not known, all is direct and in equal parts.
#pragma once

#include <map>
#include <optional>

#include "net/coordinator.h"
#include "net/coordinator/path_table.h"
#include "net/exchange/plan.h"

namespace net {

// What the formula above says.
double estimated_seconds(const Plan& plan, const Ways& ways,
                         const CoordinatorOptions::RoundBytes& bytes);

class Planner {
 public:
  explicit Planner(const CoordinatorOptions& options) : options_(options) {}

  void on_measured(uint64_t from, uint64_t to, const Way& way) { table_.take(from, to, way); }
  // A plan did not work: the next rounds are direct.
  void on_stuck();
  // Fills in the owners, the plan and the estimate of an Open with contributors, some of whom can
  // be dialled.
  void choose(Open& open, size_t fragment);

 private:
  struct Choice {
    PlanKind plan = PlanKind::kDirect;
    std::vector<uint8_t> places;
    std::vector<double> shares;  // Empty: equal.
    double seconds = 0;          // 0: not known.
  };
  std::vector<Choice> candidates(const Open& open, const Ways& ways, bool is_known);
  std::vector<double> shares(const Open& open, const Ways& ways);
  double estimate(const Open& open, const Choice& choice, const Ways& ways, size_t fragment) const;
  bool may_be(PlanKind plan) const;

  const CoordinatorOptions& options_;
  PathTable table_;
  PlanKind last_ = PlanKind::kDirect;
  int64_t direct_rounds_ = 0;          // That are still to come, since a plan did not work.
  std::map<uint64_t, double> shares_;  // That are in use, by node key.
};

}  // namespace net
