#include "net/member/fragment_catch_up.h"

#include <algorithm>
#include <set>

#include "base/log.h"
#include "base/math.h"

namespace net {

FragmentCatchUp::FragmentCatchUp(FragmentStore& store, int64_t fragment)
    : store_(store),
      fragment_(fragment),
      cut_(store.cut(fragment)),
      rounds_max_(store.replay_rounds_max(fragment)),
      versions_(size_t(store.block_count(fragment)), kNoVersion) {}

void FragmentCatchUp::start(uint64_t target, uint64_t own_version) {
  target_ = target;
  results_.clear();
  std::ranges::fill(versions_, own_version);
  (void)retarget(target);
}

uint64_t FragmentCatchUp::oldest() const {
  return target_ - std::min(target_, uint64_t(rounds_max_));
}

int64_t FragmentCatchUp::retarget(uint64_t target) {
  const bool is_back = target < target_;
  target_ = target;
  if (is_back) results_.clear();
  const int64_t dropped = drop_if(
      [&](uint64_t version) { return version < oldest() || (is_back && version > target); });
  at_target_count_ = std::ranges::count(versions_, target_);
  // Where no chunk is needed nothing will come that brings them on.
  for (int64_t block = 0; block < int64_t(versions_.size()); ++block) replay(block);
  return dropped;
}

template <class Condition>
int64_t FragmentCatchUp::drop_if(const Condition& is_void) {
  int64_t dropped = 0;
  for (int64_t block = 0; block < int64_t(versions_.size()); ++block) {
    if (!is_there(block) || !is_void(versions_[size_t(block)])) continue;
    set(block, kNoVersion);
    ++dropped;
  }
  if (dropped > 0) forget_used({0, base::div_ceil(cut_.elements, cut_.chunk_elements)});
  return dropped;
}

void FragmentCatchUp::set(int64_t block, uint64_t version) {
  uint64_t& now = versions_[size_t(block)];
  at_target_count_ += int64_t(version == target_) - int64_t(now == target_);
  now = version;
}

int64_t FragmentCatchUp::present_count() const {
  return int64_t(versions_.size()) - std::ranges::count(versions_, kNoVersion);
}

FragmentCatchUp::Need FragmentCatchUp::need_of(int64_t block) const {
  if (!is_there(block)) return {.blocks = {block}, .results = {}};
  Need need;
  const Range chunks = chunks_of(block);
  for (uint64_t round = versions_[size_t(block)] + 1; round <= target_; ++round) {
    for (int64_t chunk = chunks.begin; chunk < chunks.end; ++chunk) {
      const auto found = results_.find(chunk);
      if (found != results_.end() && found->second.contains(round)) continue;
      need.results.push_back({.round = round, .chunk = chunk});
    }
  }
  return need;
}

FragmentCatchUp::Need FragmentCatchUp::need() const {
  Need all;
  std::set<Need::Result> results;  // Blocks share chunks.
  for (int64_t block = 0; block < int64_t(versions_.size()); ++block) {
    if (versions_[size_t(block)] == target_) continue;
    const Need one = need_of(block);
    all.blocks.insert(all.blocks.end(), one.blocks.begin(), one.blocks.end());
    results.insert(one.results.begin(), one.results.end());
  }
  all.results.assign(results.begin(), results.end());
  return all;
}

bool FragmentCatchUp::needs(const Need::Result& result) const {
  const Range blocks = blocks_of(result.chunk);
  for (int64_t block = blocks.begin; block < blocks.end; ++block) {
    if (is_there(block) && versions_[size_t(block)] < result.round) return true;
  }
  return false;
}

void FragmentCatchUp::take_block(int64_t block, uint64_t version) {
  set(block, version);
  replay(block);
  forget_used(chunks_of(block));
}

void FragmentCatchUp::take_result(const Need::Result& name, FragmentStore::PastChunk result) {
  if (!needs(name)) return;
  results_[name.chunk][name.round] = std::move(result);
  const Range blocks = blocks_of(name.chunk);
  for (int64_t block = blocks.begin; block < blocks.end; ++block) {
    replay(block);
    forget_used(chunks_of(block));
  }
}

int64_t FragmentCatchUp::lose_results(uint64_t round) {
  return drop_if([&](uint64_t version) { return version < round; });
}

void FragmentCatchUp::drop(const std::vector<int64_t>& blocks) {
  for (const int64_t block : blocks) {
    set(block, kNoVersion);
    forget_used(chunks_of(block));
  }
}

void FragmentCatchUp::replay(int64_t block) {
  const Range chunks = chunks_of(block);
  while (is_there(block) && versions_[size_t(block)] < target_) {
    const uint64_t round = versions_[size_t(block)] + 1;
    std::vector<FragmentStore::PastChunk> parts;
    for (int64_t chunk = chunks.begin; chunk < chunks.end; ++chunk) {
      const auto found = results_.find(chunk);
      if (found == results_.end() || !found->second.contains(round)) return;
      parts.push_back(found->second.at(round));
    }
    const auto replayed = store_.replay_block(fragment_, block, round, parts);
    if (!replayed.ok()) {
      base::log_warning("block {} of fragment {} cannot be brought to version {}: {}", block,
                        fragment_, round, replayed.reason());
    }
    set(block, replayed.ok() ? round : kNoVersion);
  }
}

void FragmentCatchUp::forget_used(Range chunks) {
  for (auto it = results_.lower_bound(chunks.begin);
       it != results_.end() && it->first < chunks.end;) {
    std::erase_if(it->second, [&, chunk = it->first](const auto& result) {
      return !needs({.round = result.first, .chunk = chunk});
    });
    it = it->second.empty() ? results_.erase(it) : std::next(it);
  }
}

FragmentCatchUp::Range FragmentCatchUp::chunks_of(int64_t block) const {
  const int64_t first = block * cut_.block_elements;
  const int64_t end = std::min(first + cut_.block_elements, cut_.elements);
  return {first / cut_.chunk_elements, base::div_ceil(end, cut_.chunk_elements)};
}

FragmentCatchUp::Range FragmentCatchUp::blocks_of(int64_t chunk) const {
  const int64_t first = chunk * cut_.chunk_elements;
  const int64_t end = std::min(first + cut_.chunk_elements, cut_.elements);
  return {first / cut_.block_elements, base::div_ceil(end, cut_.block_elements)};
}

}  // namespace net
