// A storage on which the process "crashes" in the middle of one chosen operation.
//
// Everything that changes something counts as one operation: create, each write, commit, rename,
// sync_directory, make_directories, remove_all. Operation number `fail_at` throws, and so does
// every one after it, because a dead process does nothing more; in particular an unfinished file is
// not tidied away but keeps lying there. Reading goes on working: it is how the test, playing the
// process after the restart, looks at what is left.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/file.h"

namespace test {

enum class FaultMode {
  kFail,  // The operation fails and has done nothing.
  kTorn,  // A write has written half of its bytes, remove_all has removed half of a folder, and
          // everything else has been done completely when the process dies.
};

class FaultStorage : public base::Storage {
 public:
  // `inner` outlives this one, and this one outlives its files. `fail_at` counts from 1; 0: never.
  FaultStorage(base::Storage& inner, int64_t fail_at, FaultMode mode)
      : inner_(inner), fail_at_(fail_at), mode_(mode) {}

  int64_t operation_count() const {
    std::lock_guard lock(mutex_);
    return operation_count_;
  }
  bool has_crashed() const {
    std::lock_guard lock(mutex_);
    return has_crashed_;
  }

  std::unique_ptr<base::OutputFile> create(const std::string& path) override;
  void make_directories(const std::string& path) override {
    operate("make_directories " + path, [&] { inner_.make_directories(path); });
  }
  void rename(const std::string& source, const std::string& target) override {
    operate("rename " + source, [&] { inner_.rename(source, target); });
  }
  void sync_directory(const std::string& path) override {
    operate("sync_directory " + path, [&] { inner_.sync_directory(path); });
  }
  void remove_all(const std::string& path) override {
    operate(
        "remove_all " + path, [&] { inner_.remove_all(path); }, [&] { remove_half(path); });
  }

  std::unique_ptr<base::MappedFile> map(const std::string& path) override {
    return inner_.map(path);
  }
  std::string read_text(const std::string& path) override { return inner_.read_text(path); }
  bool exists(const std::string& path) override { return inner_.exists(path); }
  std::vector<std::string> list(const std::string& path) override { return inner_.list(path); }

 private:
  friend class FaultOutputFile;
  using Action = std::function<void()>;

  void operate(const std::string& name, const Action& all) { operate(name, all, all); }

  // Counts the operation and does all of it, or, where it is the one that fails, what `mode_` says,
  // and throws.
  void operate(const std::string& name, const Action& all, const Action& half) {
    std::lock_guard lock(mutex_);
    const bool was_dead = has_crashed_;
    if (!was_dead && ++operation_count_ == fail_at_) has_crashed_ = true;
    if (!has_crashed_) return all();
    if (!was_dead && mode_ == FaultMode::kTorn) half();
    throw base::resource_lost("injected fault: " + name);
  }

  void remove_half(const std::string& path) {
    const std::vector<std::string> names = inner_.list(path);
    for (size_t i = 0; i < (names.size() + 1) / 2; ++i) inner_.remove_all(path + "/" + names[i]);
  }

  base::Storage& inner_;
  const int64_t fail_at_;
  const FaultMode mode_;
  mutable std::mutex mutex_;
  int64_t operation_count_ = 0;
  bool has_crashed_ = false;
};

class FaultOutputFile : public base::OutputFile {
 public:
  FaultOutputFile(FaultStorage& storage, std::string path)
      : storage_(storage), path_(std::move(path)) {}

  ~FaultOutputFile() override {
    if (!file_ || !storage_.has_crashed()) return;
    // The inner file removes its bytes when it goes; a dead process would not, so they step aside
    // meanwhile.
    const std::string partial = path_ + ".partial";
    const std::string aside = path_ + ".aside";
    const bool is_unfinished = storage_.inner_.exists(partial);
    if (is_unfinished) storage_.inner_.rename(partial, aside);
    file_.reset();
    if (is_unfinished) storage_.inner_.rename(aside, partial);
  }

  void open() {
    storage_.operate("create " + path_, [&] { file_ = storage_.inner_.create(path_); });
  }
  void write(std::span<const std::byte> bytes) override {
    storage_.operate(
        "write " + path_, [&] { file_->write(bytes); },
        [&] { file_->write(bytes.first(bytes.size() / 2)); });
  }
  void commit() override {
    storage_.operate("commit " + path_, [&] { file_->commit(); });
  }

 private:
  FaultStorage& storage_;
  const std::string path_;
  std::unique_ptr<base::OutputFile> file_;
};

inline std::unique_ptr<base::OutputFile> FaultStorage::create(const std::string& path) {
  auto file = std::make_unique<FaultOutputFile>(*this, path);
  file->open();
  return file;
}

// Runs `attempt` with a crash at operation 1, 2, 3 ... until one run gets through, and `examine(n)`
// after each crash and, with n = 0, after the last run. Returns how many operations `attempt`
// needs.
inline int64_t with_every_fault(base::Storage& disk, FaultMode mode,
                                const std::function<void(base::Storage&)>& attempt,
                                const std::function<void(int64_t fail_at)>& examine) {
  for (int64_t fail_at = 1;; ++fail_at) {
    FaultStorage storage(disk, fail_at, mode);
    try {
      attempt(storage);
    } catch (const base::Error&) {
      if (!storage.has_crashed()) throw;  // A failure of its own, not ours.
    }
    // An attempt that swallows the error has crashed all the same.
    if (!storage.has_crashed()) {
      examine(0);
      return storage.operation_count();
    }
    examine(fail_at);
  }
}

}  // namespace test
