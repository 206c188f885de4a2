#include "observe/metrics.h"

#include <cerrno>
#include <chrono>
#include <cstring>
#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <unistd.h>

#include "base/log.h"

namespace observe {
namespace {

std::string utc_now() {
  using namespace std::chrono;
  const auto now = system_clock::now();
  const auto milliseconds_part = duration_cast<milliseconds>(now.time_since_epoch()).count() % 1000;
  return fmt::format("{:%FT%T}.{:03}Z", fmt::gmtime(system_clock::to_time_t(now)),
                     milliseconds_part);
}

bool ends_in_torn_line(int descriptor) {
  const off_t end = lseek(descriptor, 0, SEEK_END);
  char last = '\n';
  return end > 0 && pread(descriptor, &last, 1, end - 1) == 1 && last != '\n';
}

}  // namespace

MetricsFile::MetricsFile(const std::string& path, std::string node_name)
    : node_name_(std::move(node_name)) {
  descriptor_ = open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (descriptor_ < 0) {
    throw base::resource_lost(fmt::format("cannot open {}: {}", path, std::strerror(errno)),
                              "check that the run directory is writable");
  }
  is_torn_ = ends_in_torn_line(descriptor_);
}

MetricsFile::~MetricsFile() {
  close(descriptor_);
}

base::JsonWriter MetricsFile::begin_line(std::string_view event) const {
  base::JsonWriter line;
  line.begin_object().key("event").value(event).field("time", utc_now()).field("node", node_name_);
  return line;
}

void MetricsFile::write(base::JsonWriter& line) {
  line.end_object();
  std::lock_guard lock(mutex_);
  if (listener_) listener_(line.text());
  // What closes a torn line goes with the next one, in the same system call.
  const std::string text = (is_torn_ ? "\n" : "") + line.text() + "\n";
  const ssize_t written = ::write(descriptor_, text.data(), text.size());
  if (written > 0) is_torn_ = text[size_t(written) - 1] != '\n';
  if (written == ssize_t(text.size()) || failure_reported_) return;
  failure_reported_ = true;
  base::log_warning(
      "metrics.jsonl: a line could not be written: {}; further ones may be missing as well",
      written < 0 ? std::strerror(errno) : "the disk is full");
}

}  // namespace observe
