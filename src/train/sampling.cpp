#include "train/sampling.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace train {
namespace {

struct Candidate {
  float logit;
  int32_t token;
};

bool is_likelier(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

// Likeliest first.
std::vector<Candidate> best_candidates(std::span<const float> logits, int64_t top_k) {
  std::vector<Candidate> candidates(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) candidates[i] = {logits[i], int32_t(i)};
  const size_t count = top_k > 0 ? std::min(candidates.size(), size_t(top_k)) : candidates.size();
  std::ranges::partial_sort(candidates, candidates.begin() + int64_t(count), is_likelier);
  candidates.resize(count);
  return candidates;
}

}  // namespace

int32_t choose_token(std::span<const float> logits, const SamplingOptions& options,
                     base::Random& random) {
  if (options.temperature <= 0) return int32_t(std::ranges::max_element(logits) - logits.begin());
  const std::vector<Candidate> candidates = best_candidates(logits, options.top_k);
  std::vector<double> cumulative;
  double total = 0;
  for (const Candidate& candidate : candidates)
    cumulative.push_back(total +=
                         std::exp((double(candidate.logit) - double(candidates.front().logit)) /
                                  options.temperature));
  if (options.top_p < 1) {
    const auto last = std::ranges::lower_bound(cumulative, options.top_p * total);
    cumulative.resize(size_t(last - cumulative.begin()) + 1);
    total = cumulative.back();
  }
  const auto at = std::ranges::lower_bound(cumulative, random.uniform() * total);
  return candidates[std::min(size_t(at - cumulative.begin()), cumulative.size() - 1)].token;
}

double log_sum_exp(std::span<const float> logits) {
  const float max = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(double(logit - max));
  return double(max) + std::log(sum);
}

}  // namespace train
