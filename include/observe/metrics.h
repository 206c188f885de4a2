// metrics.jsonl: one JSON object per line, appended as things happen. docs/formats/metrics.md lists
// the events.
#pragma once

#include <functional>
#include <mutex>
#include <string>
#include <string_view>

#include "base/json.h"

namespace observe {

// Thread safe. A line that cannot be written (a full disk) is reported once in the log and never
// stops training.
class MetricsFile {
 public:
  // Opens or makes the file. A line that a crash or a full disk tore is closed with a newline
  // before the next one, so that readers lose only that one. Throws resource_lost if it cannot be
  // opened.
  MetricsFile(const std::string& path, std::string node_name);
  ~MetricsFile();
  MetricsFile(const MetricsFile&) = delete;
  MetricsFile& operator=(const MetricsFile&) = delete;

  // A line with "event", "time" (ISO 8601, UTC, milliseconds) and "node" in it; add fields, then
  // write() it.
  base::JsonWriter begin_line(std::string_view event) const;

  // Ends the object and appends it with one system call, so that no reader sees half of it.
  void write(base::JsonWriter& line);

  // Hears every line from here on, without its end, also those for which the disk has no room. It
  // is called on the thread that writes, and must return at once. Before the first write().
  void set_listener(std::function<void(std::string_view line)> listener) {
    listener_ = std::move(listener);
  }

 private:
  std::string node_name_;
  std::function<void(std::string_view)> listener_;
  std::mutex mutex_;
  int descriptor_ = -1;
  bool is_torn_ = false;  // The file ends in part of a line.
  bool failure_reported_ = false;
};

}  // namespace observe
