#include "outer/past_rounds.h"

#include <utility>

namespace outer {

void PastRounds::add(uint64_t version, PastRound round) {
  if (kept_max_ == 0) return;
  std::lock_guard lock(mutex_);
  rounds_.insert_or_assign(version, std::move(round));
  while (int64_t(rounds_.size()) > kept_max_) rounds_.erase(rounds_.begin());
}

void PastRounds::clear() {
  std::lock_guard lock(mutex_);
  rounds_.clear();
}

std::optional<net::FragmentStore::PastChunk> PastRounds::find(uint64_t version,
                                                              int64_t chunk) const {
  std::lock_guard lock(mutex_);
  const auto found = rounds_.find(version);
  if (found == rounds_.end()) return std::nullopt;
  const PastRound& round = found->second;
  const bool is_refused = round.is_refused[size_t(chunk)] != 0;
  return net::FragmentStore::PastChunk{
      .step = round.step,
      .is_refused = is_refused,
      .result = is_refused ? net::FragmentStore::Part{} : round.results[size_t(chunk)]};
}

}  // namespace outer
