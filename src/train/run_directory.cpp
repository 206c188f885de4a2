#include "train/run_directory.h"

#include "base/log.h"
#include "checkpoint/checkpoint.h"
#include "train/swarm_security.h"

namespace train {

RunDirectory::RunDirectory(const RunConfig& config, base::Storage& storage)
    : config_(config), storage_(storage) {
  base::configure_log({.prefix = config.node.name, .file = {}, .keep_lines = true});
  lock_ = base::DirectoryLock::take_existing(config.node.run_directory);
  load_key();
}

void RunDirectory::load_key() {
  const std::string given = config_.node.key_file;
  const std::string own = path("node_key");
  if (!given.empty()) {
    node_key_ = load_node_key(storage_, given);
  } else if (storage_.exists(own)) {
    const auto key = net::parse_node_key(storage_.read_text(own));
    if (key.ok()) node_key_ = *key;
    if (!key.ok()) base::log_warning("{} does not hold a node key; a new one is made", own);
  }
  is_key_stored_ = node_key_.has_value();
  if (!is_key_stored_) node_key_ = net::NodeKey::make();
}

void RunDirectory::claim(const std::vector<std::string>& abandoned) {
  storage_.make_directories(config_.node.run_directory);
  if (!lock_) lock_ = base::DirectoryLock::take(config_.node.run_directory);
  base::configure_log({.prefix = config_.node.name, .file = path("log.txt")});
  storage_.write_atomically(path("config.json"), to_json(config_) + "\n");
  if (!is_key_stored_) storage_.write_private(path("node_key"), node_key_->file_text());
  for (const std::string& folder : abandoned) {
    base::log_warning("{} is set aside as {}", folder, checkpoint::set_aside(storage_, folder));
  }
}

std::string RunDirectory::path(const std::string& name) const {
  return config_.node.run_directory + "/" + name;
}

}  // namespace train
