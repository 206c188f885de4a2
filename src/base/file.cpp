// Files on a POSIX disk. What a crash may leave behind: `name.partial`, never half a `name`.
#include "base/file.h"

#include <algorithm>
#include <cerrno>
#include <dirent.h>
#include <fcntl.h>
#include <filesystem>
#include <sys/mman.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>

#include "base/math.h"

namespace base {
namespace {

constexpr int64_t kTextBytesMax = kGiB;  // Configurations and tokenizers are a few megabytes.

std::string system_reason(int error) {
  return std::generic_category().message(error);
}

// What is wrong with the path is the caller's to mend; all else is wrong with the machine.
Error cannot_read(const std::string& path, int error) {
  const std::string message = fmt::format("cannot read {}: {}", path, system_reason(error));
  switch (error) {
    case ENOENT:
    case ENOTDIR:
    case EISDIR:
    case ENAMETOOLONG:
    case ELOOP:
    case EINVAL:
      return bad_input(message);
    case EACCES:
    case EPERM:
      return bad_input(message, "check the owner and the permissions of the file");
    case EMFILE:
    case ENFILE:
      return resource_lost(message, "raise the limit on open files (ulimit -n)");
    case EIO:
      return resource_lost(message, "the disk may be broken: see the kernel's log");
    default:
      return resource_lost(message);
  }
}

Error cannot_write(const char* attempt, const std::string& path, int error) {
  const auto hint = [&]() -> const char* {
    switch (error) {
      case ENOSPC:
      case EDQUOT:
        return "free some space on the disk";
      case EFBIG:
        return "raise the limit on the size of files (ulimit -f)";
      case EACCES:
      case EPERM:
        return "check the owner and the permissions of the folder";
      case EROFS:
        return "the file system is mounted read-only";
      case ENOENT:
      case ENOTDIR:
        return "check that the folder exists";
      case EIO:
        return "the disk may be broken: see the kernel's log";
      default:
        return "";
    }
  }();
  return resource_lost(fmt::format("cannot {} {}: {}", attempt, path, system_reason(error)), hint);
}

class FileDescriptor {
 public:
  explicit FileDescriptor(int number) : number_(number) {}
  ~FileDescriptor() {
    if (number_ >= 0) ::close(number_);
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  int number() const { return number_; }
  bool is_open() const { return number_ >= 0; }

 private:
  const int number_;
};

void sync_folder(const std::string& path) {
  const FileDescriptor folder(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder.is_open()) throw cannot_write("sync the folder", path, errno);
  // EINVAL: some network file systems cannot sync a folder and do not need it.
  if (::fsync(folder.number()) != 0 && errno != EINVAL) {
    throw cannot_write("sync the folder", path, errno);
  }
}

std::string folder_of(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

class DiskOutputFile : public OutputFile {
 public:
  DiskOutputFile(const std::string& path, mode_t mode)
      : path_(path),
        partial_path_(path + ".partial"),
        file_(::open(partial_path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode)) {
    if (!file_.is_open()) throw cannot_write("create", partial_path_, errno);
  }

  ~DiskOutputFile() override {
    if (!committed_) ::unlink(partial_path_.c_str());
  }

  void write(std::span<const std::byte> bytes) override {
    CHECK(!committed_, "{}: write() after commit()", path_);
    while (!bytes.empty()) {
      const ssize_t written = ::write(file_.number(), bytes.data(), bytes.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) throw cannot_write("write", partial_path_, errno);
      bytes = bytes.subspan(size_t(written));
    }
  }

  void commit() override {
    CHECK(!committed_, "{}: commit() twice", path_);
    if (::fsync(file_.number()) != 0) throw cannot_write("sync", partial_path_, errno);
    if (::rename(partial_path_.c_str(), path_.c_str()) != 0) {
      throw cannot_write("give its final name to", partial_path_, errno);
    }
    committed_ = true;
    sync_folder(folder_of(path_));
  }

 private:
  const std::string path_;
  const std::string partial_path_;
  const FileDescriptor file_;
  bool committed_ = false;
};

class DiskMappedFile : public MappedFile {
 public:
  explicit DiskMappedFile(const std::string& path) {
    const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file.is_open()) throw cannot_read(path, errno);
    struct stat status;
    if (::fstat(file.number(), &status) != 0) throw cannot_read(path, errno);
    if (!S_ISREG(status.st_mode)) throw bad_input(fmt::format("cannot map {}: not a file", path));
    if (status.st_size == 0) return;  // There are no mappings of zero bytes.
    const size_t byte_count = size_t(status.st_size);
    void* address = ::mmap(nullptr, byte_count, PROT_READ, MAP_SHARED, file.number(), 0);
    if (address == MAP_FAILED) throw cannot_read(path, errno);
    bytes_ = {static_cast<const std::byte*>(address), byte_count};
  }

  ~DiskMappedFile() override {
    if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
  }

  std::span<const std::byte> bytes() const override { return bytes_; }

 private:
  std::span<const std::byte> bytes_;
};

class DiskStorage : public Storage {
 public:
  std::unique_ptr<OutputFile> create(const std::string& path) override {
    return std::make_unique<DiskOutputFile>(path, 0644);
  }

  // One that lies there could be readable.
  std::unique_ptr<OutputFile> create_private(const std::string& path) override {
    ::unlink((path + ".partial").c_str());
    return std::make_unique<DiskOutputFile>(path, 0600);
  }

  std::unique_ptr<MappedFile> map(const std::string& path) override {
    return std::make_unique<DiskMappedFile>(path);
  }

  std::string read_text(const std::string& path) override {
    const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file.is_open()) throw cannot_read(path, errno);
    std::string text;
    std::string block(size_t(kMiB), '\0');
    while (true) {
      const ssize_t count = ::read(file.number(), block.data(), block.size());
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) throw cannot_read(path, errno);
      if (count == 0) return text;
      text.append(block, 0, size_t(count));
      if (int64_t(text.size()) > kTextBytesMax) {
        throw bad_input(
            fmt::format("cannot read {}: a text of more than {} bytes", path, kTextBytesMax));
      }
    }
  }

  bool exists(const std::string& path) override {
    struct stat status;
    if (::stat(path.c_str(), &status) == 0) return true;
    if (errno == ENOENT || errno == ENOTDIR) return false;
    throw cannot_read(path, errno);
  }

  void make_directories(const std::string& path) override {
    std::error_code error;
    std::filesystem::create_directories(path, error);
    if (error) throw cannot_write("create the folder", path, error.value());
  }

  void rename(const std::string& source, const std::string& target) override {
    if (::rename(source.c_str(), target.c_str()) != 0) {
      throw cannot_write("rename", source + " to " + target, errno);
    }
  }

  void sync_directory(const std::string& path) override { sync_folder(path); }

  void remove_all(const std::string& path) override {
    std::error_code error;
    std::filesystem::remove_all(path, error);
    if (error) throw cannot_write("remove", path, error.value());
  }

  std::vector<std::string> list(const std::string& path) override {
    std::error_code error;
    std::vector<std::string> names;
    std::filesystem::directory_iterator entry(path, error);
    while (!error && entry != std::filesystem::directory_iterator()) {
      names.push_back(entry->path().filename().string());
      entry.increment(error);
    }
    if (error && error.value() != ENOENT) throw cannot_read(path, error.value());
    std::sort(names.begin(), names.end());
    return names;
  }
};

}  // namespace

void Storage::write_atomically(const std::string& path, std::span<const std::byte> bytes) {
  const auto file = create(path);
  file->write(bytes);
  file->commit();
}

void Storage::write_atomically(const std::string& path, const std::string& text) {
  write_atomically(path, std::as_bytes(std::span(text)));
}

void Storage::write_private(const std::string& path, const std::string& text) {
  const auto file = create_private(path);
  file->write(std::as_bytes(std::span(text)));
  file->commit();
}

std::unique_ptr<Storage> make_disk_storage() {
  return std::make_unique<DiskStorage>();
}

}  // namespace base
