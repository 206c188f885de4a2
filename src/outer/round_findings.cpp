#include "outer/round_findings.h"

#include <algorithm>
#include <cmath>

namespace outer {

namespace {

constexpr double kAgainstMomentum = -0.5;
constexpr double kMostOfTheMean = 0.5;
constexpr double kShareMax = 2;  // Times that of the weight.

struct Sums {
  double squares = 0, momentum = 0, mean = 0;
  double weight_tokens = 0, all_tokens = 0;
};

// 0 where there is nothing to divide by, or the numbers are beyond what can be said of them.
double quotient(double a, double b) {
  const double result = a / b;
  return std::isfinite(result) ? result : 0;
}

void add_outlier(std::map<net::PeerId, RoundFindings::Outlier>& outliers, const PartEffect& part) {
  if (part.reach == 1 || part.is_subtotal) return;
  RoundFindings::Outlier& outlier = outliers[part.peer];
  outlier.peer = part.peer;
  ++(part.reach > 0 ? outlier.shortened_chunks : outlier.left_out_chunks);
}

}  // namespace

RoundFindings findings_of(const EffectsByChunk& chunks) {
  RoundFindings findings;
  std::map<net::PeerId, RoundFindings::Outlier> outliers;
  std::map<net::PeerId, Sums> sums;
  double mean_squares = 0, momentum_squares = 0;
  for (const auto& [chunk, effects] : chunks) {
    for (const PartEffect& part : effects.parts) add_outlier(outliers, part);
    if (std::ranges::any_of(effects.parts, &PartEffect::is_subtotal)) continue;
    ++findings.summed_chunks;
    mean_squares += effects.mean_squares;
    momentum_squares += effects.momentum_squares;
    double all_tokens = 0;
    for (const PartEffect& part : effects.parts) all_tokens += double(part.weight_tokens);
    for (const PartEffect& part : effects.parts) {
      Sums& sum = sums[part.peer];
      sum.squares += part.squares;
      sum.momentum += part.momentum;
      sum.mean += part.mean;
      sum.weight_tokens += double(part.weight_tokens);
      sum.all_tokens += all_tokens;
    }
  }
  for (const auto& [peer, outlier] : outliers) findings.outliers.push_back(outlier);
  findings.mean_norm = quotient(std::sqrt(mean_squares), 1);
  findings.momentum_norm = quotient(std::sqrt(momentum_squares), 1);
  for (const auto& [peer, sum] : sums) {
    findings.influences.push_back(
        {.peer = peer,
         .norm = quotient(std::sqrt(sum.squares), 1),
         .cosine = quotient(sum.momentum, std::sqrt(sum.squares) * std::sqrt(momentum_squares)),
         .share = quotient(sum.mean, mean_squares),
         .weight_share = quotient(sum.weight_tokens, sum.all_tokens)});
  }
  return findings;
}

bool is_remarkable(const RoundFindings::Influence& influence, int64_t parts) {
  if (influence.cosine < kAgainstMomentum) return true;
  if (parts < 3) return false;
  const bool is_most =
      influence.share > kMostOfTheMean && influence.share > kShareMax * influence.weight_share;
  return is_most || influence.share < 0;
}

}  // namespace outer
