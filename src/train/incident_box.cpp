#include "train/incident_box.h"

#include <utility>

namespace train {
namespace {

constexpr size_t kEntriesMax = 256;

}  // namespace

void IncidentBox::put(net::Incident incident) {
  const std::lock_guard lock(mutex_);
  if (content_.entries.size() == kEntriesMax) {
    ++content_.dropped_count;
    return;
  }
  content_.entries.push_back(
      {.incident = std::move(incident), .at = std::chrono::steady_clock::now()});
}

IncidentBox::Content IncidentBox::take() {
  const std::lock_guard lock(mutex_);
  return std::exchange(content_, {});
}

}  // namespace train
