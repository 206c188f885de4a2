#include "net/coordinator/conduct.h"

#include <algorithm>

#include "net/probe.h"

namespace net {
namespace {

constexpr int64_t kRoundsToKeepMax = 256;
// After so many rounds without an offence one is forgotten.
constexpr int64_t kRoundsPerPardon = 32;
constexpr int64_t kMissedMax = 2;
// Whoever makes up new keys is a new node each time; old records must not pile up.
constexpr size_t kRecordsMax = 4096;

}  // namespace

const Conduct::Record* Conduct::find(uint64_t node) const {
  const auto found = records_.find(node);
  return found == records_.end() ? nullptr : &found->second;
}

Conduct::Record& Conduct::at(uint64_t node) {
  if (records_.size() >= kRecordsMax && !records_.contains(node)) {
    std::erase_if(records_, [](const auto& entry) { return entry.second.to_keep == 0; });
    if (records_.size() >= kRecordsMax) records_.clear();
  }
  return records_[node];
}

void Conduct::offended(uint64_t node, const std::string& why, int64_t count) {
  Record& record = at(node);
  record.offences += count;
  const int64_t doublings = std::min<int64_t>(record.offences - 1, 8);
  record.to_keep = std::min(int64_t{1} << doublings, kRoundsToKeepMax);
  probe<"a node on probation offends again">(record.to_keep > 0);
  record.kept_in_a_row = 0;
  record.why = why;
}

void Conduct::kept(uint64_t node) {
  if (!find(node)) return;
  Record& record = at(node);
  if (record.to_keep > 0) {
    --record.to_keep;
  } else if (record.offences > 0 && ++record.kept_in_a_row % kRoundsPerPardon == 0) {
    probe<"an offence is forgiven">();
    --record.offences;
  }
}

int64_t Conduct::rounds_to_keep(uint64_t node) const {
  const Record* const record = find(node);
  return record ? record->to_keep : 0;
}

int64_t Conduct::offences(uint64_t node) const {
  const Record* const record = find(node);
  return record ? record->offences : 0;
}

std::string Conduct::last_offence(uint64_t node) const {
  const Record* const record = find(node);
  return record ? record->why : "";
}

void Conduct::was_ready(uint64_t node, bool in_time) {
  if (in_time && !find(node)) return;
  Record& record = at(node);
  record.missed = std::clamp<int64_t>(record.missed + (in_time ? -1 : 1), 0, 2 * kMissedMax);
  probe<"a node is not waited for any more">(record.missed == kMissedMax && !in_time);
}

bool Conduct::is_awaited(uint64_t node) const {
  const Record* const record = find(node);
  return !record || (record->missed < kMissedMax && record->to_keep == 0);
}

}  // namespace net
