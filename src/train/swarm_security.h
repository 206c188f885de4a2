// What secures the links of a node or a coordinator, from its config and its files.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "net/security.h"
#include "train/run_config.h"

namespace train {

// Throws bad_input that names the file. Warns if others than its owner can read it.
net::NodeKey load_node_key(base::Storage& storage, const std::string& path);

// Null with swarm.security "none", with a warning. `allowed` is for "keys": who is let in. Throws
// bad_input, with a hint how to make what is missing; what it says never holds a secret.
std::shared_ptr<const net::Security> load_security(const RunConfig& config, base::Storage& storage,
                                                   const net::NodeKey& key,
                                                   std::shared_ptr<const net::AllowedKeys> allowed);

// Of a node in a run with "keys": the coordinator's, which is all that it lets in until the
// coordinator tells it more. Nothing in other runs.
std::optional<net::NodeId> coordinator_key(const RunConfig& config);

// The list that a coordinator has in a file, which may change at any time.
class KeyListFile {
 public:
  // Throws bad_input for a file that is no list.
  KeyListFile(base::Storage& storage, std::string path, int64_t now);

  std::shared_ptr<const net::AllowedKeys> allowed() const { return allowed_; }
  // Reads it again; what was the same twice is taken. A file that is missing, empty or no list any
  // more changes nothing and is told, once.
  // `now`: seconds since 1970, for keys whose time is over.
  void refresh(int64_t now);

 private:
  void take(const std::vector<net::AllowedKey>& keys, int64_t now);

  base::Storage& storage_;
  const std::string path_;
  const std::shared_ptr<net::AllowedKeys> allowed_ = std::make_shared<net::AllowedKeys>();
  std::string text_;  // In force.
  std::string last_read_;
  std::string told_;  // What was wrong the last time.
};

}  // namespace train
