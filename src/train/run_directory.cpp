#include "train/run_directory.h"

#include <charconv>
#include <fmt/format.h>
#include <random>

#include "base/log.h"
#include "checkpoint/checkpoint.h"

namespace train {
namespace {

// 0: not a key.
uint64_t parse_key(const std::string& text) {
  uint64_t key = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), key, 16);
  return error == std::errc() ? key : 0;
}

uint64_t make_key() {
  std::random_device random;
  return (uint64_t{random()} << 32 | random()) | 1;
}

}  // namespace

RunDirectory::RunDirectory(const RunConfig& config, base::Storage& storage)
    : config_(config), storage_(storage) {
  base::configure_log({.prefix = config.node.name, .file = {}, .keep_lines = true});
  lock_ = base::DirectoryLock::take_existing(config.node.run_directory);
  const std::string key_path = path("node_key");
  if (storage_.exists(key_path)) {
    node_key_ = parse_key(storage_.read_text(key_path));
    if (node_key_ == 0)
      base::log_warning("{} does not hold a node key; a new one is made", key_path);
  }
  is_key_stored_ = node_key_ != 0;
  if (!is_key_stored_) node_key_ = make_key();
}

void RunDirectory::claim(const std::vector<std::string>& abandoned) {
  storage_.make_directories(config_.node.run_directory);
  if (!lock_) lock_ = base::DirectoryLock::take(config_.node.run_directory);
  base::configure_log({.prefix = config_.node.name, .file = path("log.txt")});
  storage_.write_atomically(path("config.json"), to_json(config_) + "\n");
  if (!is_key_stored_)
    storage_.write_atomically(path("node_key"), fmt::format("{:016x}\n", node_key_));
  for (const std::string& folder : abandoned) {
    base::log_warning("{} is set aside as {}", folder, checkpoint::set_aside(storage_, folder));
  }
}

std::string RunDirectory::path(const std::string& name) const {
  return config_.node.run_directory + "/" + name;
}

}  // namespace train
