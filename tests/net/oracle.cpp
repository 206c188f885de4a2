#include "net/oracle.h"

#include <algorithm>
#include <fmt/format.h>

namespace net {

void Oracle::saw_commit(const RoundKey& key, const base::Digest& results) {
  const auto [seen, is_first] = results_.emplace(key, results);
  if (!is_first && seen->second != results) {
    violated(fmt::format("round {} of fragment {} was committed with two results", key.round,
                         key.fragment));
  }
}

void Oracle::saw_state(const RoundKey& key, const base::Digest& before, const base::Digest& after,
                       std::vector<uint64_t> counted) {
  const auto [seen, is_first] = states_.emplace(key, std::pair(before, after));
  if (!is_first && seen->second != std::pair(before, after)) {
    violated(
        fmt::format("version {} of fragment {} differs between members", key.round, key.fragment));
  }
  if (is_first) check_neighbours(key);
  steps_.try_emplace({key.fragment, after}, Step{before, std::move(counted)});
}

// What one coordinator commits follows from what it had committed before.
void Oracle::check_neighbours(const RoundKey& key) {
  for (const RoundKey& later : {key, RoundKey{key.term, key.fragment, key.round + 1}}) {
    const auto next = states_.find(later);
    const auto last = states_.find({later.term, later.fragment, later.round - 1});
    if (next == states_.end() || last == states_.end()) continue;
    if (next->second.first == last->second.second) continue;
    violated(fmt::format("version {} of fragment {} does not follow from the one before",
                         later.round, later.fragment));
  }
}

std::vector<base::Digest> Oracle::history(int64_t fragment, const base::Digest& state) const {
  std::vector<base::Digest> history{state};
  for (auto step = steps_.find({fragment, state}); step != steps_.end();
       step = steps_.find({fragment, step->second.before})) {
    history.push_back(step->second.before);
  }
  return history;
}

void Oracle::check_work(int64_t fragment, const base::Digest& state) {
  std::vector<uint64_t> all;
  for (const base::Digest& one : history(fragment, state)) {
    const auto step = steps_.find({fragment, one});
    if (step == steps_.end()) continue;
    all.insert(all.end(), step->second.counted.begin(), step->second.counted.end());
  }
  std::ranges::sort(all);
  if (std::ranges::adjacent_find(all) == all.end()) return;
  violated(fmt::format("work is counted twice in fragment {}", fragment));
}

}  // namespace net
