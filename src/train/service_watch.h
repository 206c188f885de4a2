// What the service manager hears of a node or a coordinator: that it is ready, what it does, and
// that it still gets on.
//
// The watchdog is tied to progress: nothing says it by a timer. It is said where the trainer's
// thread comes by (after every step, micro-batch of an evaluation, and while it waits for others,
// which has time-outs of its own) and where bytes are written to the disk. A thread that hangs in a
// driver or in a lock says nothing.
#pragma once

#include <chrono>
#include <functional>
#include <mutex>
#include <optional>
#include <string>

#include "base/file.h"
#include "base/service_manager.h"

namespace train {

// Thread safe.
class ServiceWatch {
 public:
  using Clock = std::chrono::steady_clock;
  // `now` is for tests.
  explicit ServiceWatch(base::ServiceManager manager, std::function<Clock::time_point()> now = {});

  void ready(const std::string& status);
  // At most once a second.
  void status(const std::string& text);
  // Progress. Cheap: says it four times in the watchdog's time.
  void alive();
  // From here on progress gives the stop more time.
  void stopping();

 private:
  void say_alive();

  const base::ServiceManager manager_;
  const std::function<Clock::time_point()> now_;
  std::mutex mutex_;
  std::optional<Clock::time_point> alive_at_, status_at_;
  bool is_stopping_ = false;
};

// The same files; what is written is progress. Both outlive the object.
class WatchedStorage : public base::Storage {
 public:
  WatchedStorage(base::Storage& storage, ServiceWatch& watch) : storage_(storage), watch_(watch) {}

  std::unique_ptr<base::OutputFile> create(const std::string& path) override;
  std::unique_ptr<base::OutputFile> create_private(const std::string& path) override;
  std::unique_ptr<base::MappedFile> map(const std::string& path) override {
    return storage_.map(path);
  }
  std::string read_text(const std::string& path) override { return storage_.read_text(path); }
  bool exists(const std::string& path) override { return storage_.exists(path); }
  void make_directories(const std::string& path) override { storage_.make_directories(path); }
  void rename(const std::string& source, const std::string& target) override {
    storage_.rename(source, target);
  }
  void sync_directory(const std::string& path) override { storage_.sync_directory(path); }
  void remove_all(const std::string& path) override { storage_.remove_all(path); }
  std::vector<std::string> list(const std::string& path) override { return storage_.list(path); }

 private:
  base::Storage& storage_;
  ServiceWatch& watch_;
};

}  // namespace train
