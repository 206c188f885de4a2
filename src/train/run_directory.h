// The folder of a node's run, which belongs to one process at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/directory_lock.h"
#include "base/file.h"
#include "net/keys.h"
#include "train/run_config.h"

namespace train {

// Until claim() nothing on the disk is changed, so that a start that is refused (by the lock, by a
// checkpoint of another config, by the coordinator) leaves everything as it was.
class RunDirectory {
 public:
  // Locks the folder if there was ever a run in it. Throws bad_input that names the process which
  // uses it. The log goes to stderr, and is kept for the folder's. `config` outlives the object.
  RunDirectory(const RunConfig& config, base::Storage& storage);

  // The same one after every restart in the folder, so that the coordinator knows the node again;
  // that of node.key_file, if there is one.
  const net::NodeKey& node_key() const { return *node_key_; }

  // Makes the folder its own: log.txt, config.json, node_key. Sets aside the checkpoints of these
  // folders. Throws as the constructor, and resource_lost.
  void claim(const std::vector<std::string>& abandoned);

  std::string path(const std::string& name) const;

 private:
  void load_key();

  const RunConfig& config_;
  base::Storage& storage_;
  std::unique_ptr<base::DirectoryLock> lock_;
  std::optional<net::NodeKey> node_key_;
  bool is_key_stored_ = false;
};

}  // namespace train
