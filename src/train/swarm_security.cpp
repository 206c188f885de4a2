#include "train/swarm_security.h"

#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <sys/stat.h>

#include "base/log.h"

namespace train {
namespace {

constexpr const char* kSecretVariable = "ATOLL_RUN_SECRET";

void warn_if_others_can_read(const std::string& path) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0 || (status.st_mode & (S_IRWXG | S_IRWXO)) == 0) return;
  base::log_warning("{} can be read by others than its owner (chmod 600 {})", path, path);
}

// Nothing where the variable is not there, or empty, as some that start containers pass it.
std::optional<std::string> secret_of_environment() {
  const char* const text = std::getenv(kSecretVariable);
  if (text == nullptr || *text == 0) return std::nullopt;
  return text;
}

base::Error no_secret(const std::string& path) {
  std::string hint = fmt::format(
      "make one with `atoll keys new-run {}`, and give the same to all nodes (or see "
      "swarm.security)",
      path.empty() ? "FILE" : path);
  if (path.starts_with('~')) hint = "~ means a folder only to a shell: write the whole path";
  const auto where =
      path.empty() ? "node.run_secret_file" : std::filesystem::absolute(path).string();
  return base::bad_input(
      fmt::format("the run has no secret: neither {} nor {} is there", where, kSecretVariable),
      hint);
}

net::RunSecret load_run_secret(const RunConfig& config, base::Storage& storage) {
  const auto variable = secret_of_environment();
  const std::string path = config.node.run_secret_file;
  if (!variable && (path.empty() || !storage.exists(path))) throw no_secret(path);
  auto secret = net::parse_run_secret(variable ? *variable : storage.read_text(path));
  if (!secret.ok()) {
    throw base::bad_input(fmt::format("{} is no secret of a run: {}",
                                      variable ? kSecretVariable : path, secret.reason()),
                          "make one with `atoll keys new-run FILE`");
  }
  if (!variable) warn_if_others_can_read(path);
  return *secret;
}

// Whose time is not over.
std::vector<net::NodeId> valid_at(const std::vector<net::AllowedKey>& keys, int64_t now) {
  std::vector<net::NodeId> ids;
  for (const net::AllowedKey& key : keys)
    if (key.until == 0 || now < key.until) ids.push_back(key.id);
  return ids;
}

}  // namespace

net::NodeKey load_node_key(base::Storage& storage, const std::string& path) {
  auto key = net::parse_node_key(storage.read_text(path));
  if (!key.ok()) {
    throw base::bad_input(fmt::format("{} is no node key: {}", path, key.reason()),
                          "make one with `atoll keys new-node FILE`");
  }
  warn_if_others_can_read(path);
  return *key;
}

std::shared_ptr<const net::Security> load_security(
    const RunConfig& config, base::Storage& storage, const net::NodeKey& key,
    std::shared_ptr<const net::AllowedKeys> allowed) {
  if (config.swarm.security == "none") {
    base::log_warning(
        "swarm.security is none: whoever reaches the port can read what nodes say, change it, and "
        "join the run");
    return nullptr;
  }
  net::Security security{.run_name = config.name, .key = key, .secret = {}, .allowed = nullptr};
  if (config.swarm.security == "keys") {
    security.allowed = std::move(allowed);
  } else {
    security.secret = load_run_secret(config, storage);
  }
  return std::make_shared<const net::Security>(std::move(security));
}

std::optional<net::NodeId> coordinator_key(const RunConfig& config) {
  if (config.swarm.security != "keys") return std::nullopt;
  const auto id = net::parse_node_id(config.swarm.coordinator_key);
  if (!id.ok()) {
    throw base::bad_input("swarm.coordinator_key: " + id.reason(),
                          "it is what `atoll keys new-node` printed for the coordinator's key");
  }
  return *id;
}

KeyListFile::KeyListFile(base::Storage& storage, std::string path, int64_t now)
    : storage_(storage), path_(std::move(path)), text_(storage_.read_text(path_)) {
  const auto keys = net::parse_allowed_keys(text_);
  if (!keys.ok() || keys->empty()) {
    throw base::bad_input(
        fmt::format("{}: {}", path_, keys.ok() ? "there is no key in it" : keys.reason()),
        "it has a line `KEY NAME` for each node, see `atoll keys`");
  }
  take(*keys, now);
}

void KeyListFile::refresh(int64_t now) {
  std::string wrong;
  try {
    std::string text = storage_.read_text(path_);
    const auto keys = net::parse_allowed_keys(text);
    if (!keys.ok()) {
      wrong = fmt::format("{}: {}", path_, keys.reason());
    } else if (keys->empty()) {
      wrong = fmt::format("{}: there is no key in it", path_);
    } else if (text == last_read_) {  // Twice the same: nobody is in the middle of writing it.
      text_ = text;
    }
    last_read_ = std::move(text);
  } catch (const base::Error& error) {
    wrong = error.what();
  }
  if (!wrong.empty() && wrong != told_) base::log_warning("the list of keys stays: {}", wrong);
  told_ = std::move(wrong);
  take(*net::parse_allowed_keys(text_), now);
}

void KeyListFile::take(const std::vector<net::AllowedKey>& keys, int64_t now) {
  const uint64_t before = allowed_->generation();
  allowed_->set(valid_at(keys, now));
  if (allowed_->generation() != before)
    base::log_info("{} keys are on the list {}", allowed_->list().size(), path_);
}

}  // namespace train
