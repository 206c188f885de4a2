#include "train/service_watch.h"

#include <fmt/format.h>

namespace train {
namespace {

// For a stop that writes a checkpoint: each sign of life prolongs the time for it.
constexpr std::chrono::seconds kStopExtension(120);
constexpr std::chrono::seconds kBetweenSigns(1);

class WatchedFile : public base::OutputFile {
 public:
  WatchedFile(std::unique_ptr<base::OutputFile> file, ServiceWatch& watch)
      : file_(std::move(file)), watch_(watch) {}
  void write(std::span<const std::byte> bytes) override {
    file_->write(bytes);
    watch_.alive();
  }
  void commit() override {
    file_->commit();
    watch_.alive();
  }

 private:
  std::unique_ptr<base::OutputFile> file_;
  ServiceWatch& watch_;
};

// A line of its own would be a message of its own.
std::string one_line(std::string text) {
  for (char& c : text)
    if (c == '\n') c = ' ';
  return text;
}

}  // namespace

ServiceWatch::ServiceWatch(base::ServiceManager manager, std::function<Clock::time_point()> now)
    : manager_(std::move(manager)), now_(now ? std::move(now) : [] { return Clock::now(); }) {}

void ServiceWatch::ready(const std::string& status) {
  std::lock_guard lock(mutex_);
  manager_.say(fmt::format("READY=1\nSTATUS={}", one_line(status)));
}

void ServiceWatch::status(const std::string& text) {
  if (!manager_.is_there()) return;
  std::lock_guard lock(mutex_);
  const auto now = now_();
  if (status_at_ && now - *status_at_ < kBetweenSigns) return;
  status_at_ = now;
  manager_.say(fmt::format("STATUS={}", one_line(text)));
}

void ServiceWatch::alive() {
  if (!manager_.is_there()) return;
  std::lock_guard lock(mutex_);
  const auto now = now_();
  const auto between = is_stopping_ || manager_.watchdog().count() == 0
                           ? std::chrono::duration_cast<Clock::duration>(kBetweenSigns)
                           : std::chrono::duration_cast<Clock::duration>(manager_.watchdog() / 4);
  if (alive_at_ && now - *alive_at_ < between) return;
  alive_at_ = now;
  say_alive();
}

void ServiceWatch::stopping() {
  std::lock_guard lock(mutex_);
  if (is_stopping_) return;
  is_stopping_ = true;
  manager_.say("STOPPING=1\nSTATUS=saving and leaving");
  say_alive();
}

void ServiceWatch::say_alive() {
  std::string lines = manager_.watchdog().count() > 0 ? "WATCHDOG=1" : "";
  if (is_stopping_) {
    lines += fmt::format("{}EXTEND_TIMEOUT_USEC={}", lines.empty() ? "" : "\n",
                         std::chrono::microseconds(kStopExtension).count());
  }
  if (!lines.empty()) manager_.say(lines);
}

std::unique_ptr<base::OutputFile> WatchedStorage::create(const std::string& path) {
  return std::make_unique<WatchedFile>(storage_.create(path), watch_);
}

std::unique_ptr<base::OutputFile> WatchedStorage::create_private(const std::string& path) {
  return std::make_unique<WatchedFile>(storage_.create_private(path), watch_);
}

}  // namespace train
