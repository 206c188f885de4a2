#include "train/resume.h"

#include <algorithm>
#include <fmt/format.h>

#include "base/log.h"
#include "train/failure_record.h"
#include "train/shared_config.h"

namespace train {
namespace {

constexpr int64_t kFailuresMax = 2;  // From one checkpoint, at one step.

std::unique_ptr<checkpoint::Reader> open_newest(base::Storage& storage, const RunConfig& config,
                                                int64_t step_end = checkpoint::kAnyStep) {
  return checkpoint::open_newest(
      storage, config.node.run_directory,
      [](const std::string& text) { base::log_warning("{}", text); }, step_end);
}

// Where training failed twice at one step after the newest checkpoint, that one may be what is
// wrong. Without one before it, it is tried again.
void go_back_if_stuck(base::Storage& storage, const RunConfig& config, ResumePoint& point) {
  const int64_t step = point.reader->manifest().step;
  const auto failure = read_failure(storage, config.node.run_directory);
  if (!failure || failure->checkpoint != step || failure->times < kFailuresMax) return;
  auto before = open_newest(storage, config, step);
  const std::string what = fmt::format(
      "training has failed {} times at step {} after the "
      "checkpoint of step {}",
      failure->times, failure->step, step);
  if (!before) {
    base::log_warning("{}, and there is none before it", what);
    return;
  }
  point.reader = std::move(before);
  point.abandoned =
      checkpoint::list(storage, config.node.run_directory, point.reader->manifest().step + 1);
  base::log_warning("{}: going back to the one of step {}", what, point.reader->manifest().step);
}

std::string describe_checkpoint(const checkpoint::Manifest& manifest, const RunConfig& config) {
  return fmt::format("the checkpoint of step {} in {}", manifest.step, config.node.run_directory);
}

base::Error another_config(const checkpoint::Manifest& manifest, const RunConfig& config,
                           const std::vector<ConfigDifference>& differences) {
  std::string what = differences.empty() ? " or by another version of Atoll"
                                         : ":\n" + difference_lines(differences);
  return base::bad_input(
      fmt::format("{} was made with another config{}", describe_checkpoint(manifest, config), what),
      change_hint(differences));
}

std::vector<checkpoint::ConfigChange> require_config(const checkpoint::Manifest& manifest,
                                                     const RunConfig& config) {
  if (manifest.step > config.training.steps) {
    throw base::bad_input(fmt::format("training.steps is {}, but {} is beyond it",
                                      config.training.steps,
                                      describe_checkpoint(manifest, config)));
  }
  const std::string here = shared_config(config);
  if (manifest.shared_config == here) return {};
  const auto differences = shared_config_differences(here, manifest.shared_config);
  const auto is_allowed = [&](const ConfigDifference& difference) {
    return std::ranges::count(config.changed_keys, difference.key) > 0;
  };
  if (differences.empty() || !std::ranges::all_of(differences, is_allowed))
    throw another_config(manifest, config, differences);
  std::vector<checkpoint::ConfigChange> changes;
  for (const ConfigDifference& difference : differences) {
    changes.push_back({.step = manifest.step,
                       .key = difference.key,
                       .before = difference.there,
                       .after = difference.here});
  }
  return changes;
}

}  // namespace

ResumePoint find_resume_point(base::Storage& storage, const RunConfig& config) {
  ResumePoint point;
  point.reader = open_newest(storage, config);
  if (!point.reader) return point;
  go_back_if_stuck(storage, config, point);
  point.changes = require_config(point.reader->manifest(), config);
  return point;
}

}  // namespace train
