// What a node goes on from, and whether it may. Looks only: nothing on the disk is changed.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/file.h"
#include "checkpoint/checkpoint.h"
#include "train/run_config.h"

namespace train {

struct ResumePoint {
  std::unique_ptr<checkpoint::Reader> reader;  // Null: there is nothing to go on from.
  // What the config changes in the run from here on, on purpose.
  std::vector<checkpoint::ConfigChange> changes;
  // Folders of newer checkpoints that led to the same failure twice: to be set aside, so that they
  // are not the newest any more.
  std::vector<std::string> abandoned;
};

// Throws bad_input that names what differs if the config is not that of the checkpoint.
ResumePoint find_resume_point(base::Storage& storage, const RunConfig& config);

}  // namespace train
