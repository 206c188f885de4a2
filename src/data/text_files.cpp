// Folders are walked by hand, because the order must be the same on every machine.
#include "data/text_files.h"

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "base/error.h"
#include "data/token_dataset.h"

namespace data {
namespace {

namespace fs = std::filesystem;

base::Error cannot_read(const fs::path& path, const std::error_code& error) {
  return base::bad_input(
      fmt::format("cannot read the input {}: {}", path.string(), error.message()));
}

// PREFIX.json or PREFIX.tokenizer.json, with a PREFIX.idx.
bool describes_dataset(const fs::path& path) {
  const std::string name = path.string();
  for (const std::string_view ending :
       {std::string_view(kTokenizerEnding), std::string_view(".json")}) {
    std::error_code error;
    if (name.ends_with(ending) &&
        fs::exists(name.substr(0, name.size() - ending.size()) + ".idx", error))
      return true;
  }
  return false;
}

class Walk {
 public:
  explicit Walk(const std::vector<std::string>& excluded) : excluded_(excluded) {}

  void add_input(const fs::path& path) {
    std::error_code error;
    const fs::file_status status = fs::status(path, error);
    if (!fs::exists(status)) throw cannot_read(path, error);
    if (fs::is_directory(status)) return add_folder(path);
    if (!fs::is_regular_file(status)) {
      throw base::bad_input(
          fmt::format("cannot read the input {}: neither a file nor a folder", path.string()));
    }
    found.paths.push_back(path.string());
  }

  FoundFiles found;

 private:
  void add_folder(const fs::path& folder) {
    std::error_code error;
    std::vector<fs::path> paths;
    for (fs::directory_iterator entry(folder, error); !error && entry != fs::directory_iterator();
         entry.increment(error)) {
      paths.push_back(entry->path());
    }
    if (error) throw cannot_read(folder, error);
    std::sort(paths.begin(), paths.end());
    for (const fs::path& path : paths) {
      if (fs::is_directory(fs::symlink_status(path, error))) {
        add_folder(path);
      } else if (!is_excluded(path)) {
        add_file(path);
      }
    }
  }

  void add_file(const fs::path& path) {
    std::error_code error;
    const fs::file_status status = fs::status(path, error);
    const auto leave_out = [&](const char* reason) {
      found.left_out.push_back({.place = path.string(), .reason = reason});
    };
    if (!fs::exists(status)) return leave_out("a link that leads nowhere");
    if (fs::is_directory(status)) return leave_out("a link to a folder");
    if (!fs::is_regular_file(status)) return leave_out("neither a file nor a folder");
    if (describes_dataset(path)) return leave_out("it describes the token dataset beside it");
    found.paths.push_back(path.string());
  }

  bool is_excluded(const fs::path& path) const {
    return std::any_of(excluded_.begin(), excluded_.end(), [&](const std::string& other) {
      std::error_code error;
      return fs::equivalent(path, other, error);
    });
  }

  const std::vector<std::string>& excluded_;
};

}  // namespace

FoundFiles find_files(const std::vector<std::string>& inputs,
                      const std::vector<std::string>& excluded) {
  Walk walk(excluded);
  for (const std::string& input : inputs) walk.add_input(input);
  return std::move(walk.found);
}

}  // namespace data
