// Files, behind an interface, so that a test can make any single write fail.
//
// What a crash may do: an atomic write is either there whole or not at all, because the bytes go to
// a temporary name, are synced, and are then renamed; the directory is synced last.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"

namespace base {

// A file being written, front to back. Nothing of it can be relied upon before commit() has
// returned.
class OutputFile {
 public:
  virtual ~OutputFile() = default;  // Without commit(): what was written is removed.
  virtual void write(std::span<const std::byte> bytes) = 0;
  // Syncs the bytes and gives the file its final name.
  virtual void commit() = 0;
};

// A read-only mapping of a whole file. Unmapped by the destructor.
class MappedFile {
 public:
  virtual ~MappedFile() = default;
  virtual std::span<const std::byte> bytes() const = 0;
};

// Every function throws base::Error: a path that names no file of ours is bad input (exit code 2),
// a disk that cannot be read or written is a lost resource (3); the message has the path and the
// system's reason. A mapping whose bytes the disk does not give raises SIGBUS, which main() ends
// the process for with exit code 3.
class Storage {
 public:
  virtual ~Storage() = default;
  virtual std::unique_ptr<OutputFile> create(const std::string& path) = 0;
  // Nobody but the owner can read it, where the storage knows owners.
  virtual std::unique_ptr<OutputFile> create_private(const std::string& path) {
    return create(path);
  }
  virtual std::unique_ptr<MappedFile> map(const std::string& path) = 0;
  virtual std::string read_text(const std::string& path) = 0;
  virtual bool exists(const std::string& path) = 0;
  virtual void make_directories(const std::string& path) = 0;
  virtual void rename(const std::string& source,
                      const std::string& target) = 0;  // Replaces `target`.
  virtual void sync_directory(const std::string& path) = 0;
  virtual void remove_all(
      const std::string& path) = 0;  // A file or a folder with everything in it; absent is fine.
  virtual std::vector<std::string> list(
      const std::string& path) = 0;  // Names, sorted; an absent folder is empty.

  // create, write, commit.
  void write_atomically(const std::string& path, std::span<const std::byte> bytes);
  void write_atomically(const std::string& path, const std::string& text);
  void write_private(const std::string& path, const std::string& text);
};

// The real one: POSIX files.
std::unique_ptr<Storage> make_disk_storage();

}  // namespace base
