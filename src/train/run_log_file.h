// net::RunLog on disk: swarm.json of a node, coordinator.json of `atoll coordinate`.
#pragma once

#include <mutex>
#include <optional>
#include <string>

#include "base/file.h"
#include "net/run_log.h"

namespace train {

std::string write_run_log(const std::string& run_name, const net::RunLog& log);
// Nothing where the text is of another run, or no such log.
std::optional<net::RunLog> parse_run_log(const std::string& run_name, const std::string& text);

// Any thread. `storage` outlives the object.
class RunLogFile {
 public:
  // What is there is read. Nothing is written before open().
  RunLogFile(base::Storage& storage, std::string path, std::string run_name);

  const net::RunLog& found() const { return found_; }
  // A disk that does not take it is said once: the run goes on, and after a crash of this node it
  // may follow a coordinator that was replaced.
  void keep(const net::RunLog& log);
  void open();

 private:
  void write();

  base::Storage& storage_;
  const std::string path_;
  const std::string run_name_;
  net::RunLog found_;
  std::mutex mutex_;
  std::optional<net::RunLog> newest_;
  bool is_open_ = false;
  bool is_failure_told_ = false;
};

}  // namespace train
