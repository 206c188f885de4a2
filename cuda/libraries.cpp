#include "cuda/libraries.h"

#include <algorithm>
#include <cstdlib>
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <filesystem>
#include <fmt/format.h>
#include <link.h>
#include <map>
#include <mutex>
#include <string_view>

#include "base/log.h"

namespace cuda {
namespace {

namespace fs = std::filesystem;

// Parts between colons that are not empty.
std::vector<std::string> split(std::string_view list) {
  std::vector<std::string> parts;
  while (!list.empty()) {
    const size_t end = std::min(list.find(':'), list.size());
    if (end > 0) parts.emplace_back(list.substr(0, end));
    list.remove_prefix(std::min(end + 1, list.size()));
  }
  return parts;
}

std::vector<fs::path> sorted_entries(const fs::path& folder) {
  std::vector<fs::path> entries;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) entries.push_back(entry.path());
  std::ranges::sort(entries);
  return entries;
}

// nvidia/*/lib below the packages of a Python that is installed in `prefix`.
std::vector<std::string> package_folders(const fs::path& prefix) {
  std::vector<std::string> folders;
  std::vector<fs::path> pythons = sorted_entries(prefix / "lib");
  for (const fs::path& python : sorted_entries(prefix / "lib64")) pythons.push_back(python);
  for (const fs::path& python : pythons) {
    if (!python.filename().string().starts_with("python3")) continue;
    for (const char* const packages : {"site-packages", "dist-packages"}) {
      for (const fs::path& package : sorted_entries(python / packages / "nvidia")) {
        std::error_code ignored;
        if (fs::is_directory(package / "lib", ignored)) folders.push_back(package / "lib");
      }
    }
  }
  return folders;
}

// Where each `python3` on PATH is installed: the first may be a mere starter of another one. A
// virtual environment's is a link, which is not followed: the packages lie beside it.
std::vector<std::string> python_prefixes(const char* path) {
  std::vector<std::string> prefixes;
  for (const std::string& folder : split(path ? path : "")) {
    std::error_code ignored;
    const fs::path python = fs::absolute(fs::path(folder) / "python3", ignored).lexically_normal();
    if (fs::exists(python, ignored)) prefixes.push_back(python.parent_path().parent_path());
  }
  return prefixes;
}

std::string error_text() {
  const char* const text = dlerror();
  return text ? text : "unknown reason";
}

base::Result<Library> open_file(const std::string& file) {
  void* const handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) return base::Failure{error_text()};
  const link_map* map = nullptr;
  const bool has_map = dlinfo(handle, RTLD_DI_LINKMAP, &map) == 0 && map != nullptr;
  return Library{.handle = handle, .path = has_map ? map->l_name : file};
}

base::Result<Library> search(const std::string& name) {
  const LibraryFolders folders = library_folders([](const char* v) { return std::getenv(v); });
  std::vector<std::string> files;
  for (const std::string& folder : folders.before) files.push_back(folder + "/" + name);
  files.push_back(name);
  for (const std::string& folder : folders.after) files.push_back(folder + "/" + name);
  std::string reasons;
  for (const std::string& folder : folders.before) {
    std::error_code ignored;
    if (!fs::is_directory(folder, ignored)) reasons = folder + " is no folder";
  }
  for (const std::string& file : files) {
    std::error_code ignored;
    if (file != name && !fs::exists(file, ignored)) continue;
    const auto library = open_file(file);
    if (library && !folders.before.empty() && !reasons.empty())
      base::log_warning("{} is taken from {} ({})", name, library->path, reasons);
    if (library) return *library;
    reasons += (reasons.empty() ? "" : "; ") + library.reason();
  }
  return base::Failure{fmt::format("{} cannot be loaded ({})", name, reasons)};
}

}  // namespace

LibraryFolders library_folders(const Variable& variable, const std::string& root) {
  const auto value = [&](const char* name) {
    const char* const text = variable(name);
    return std::string(text ? text : "");
  };
  LibraryFolders folders{.before = split(value("ATOLL_CUDA_LIBRARIES")), .after = {}};
  const auto add = [&](const std::string& folder) {
    std::error_code ignored;
    if (fs::is_directory(folder, ignored) && std::ranges::count(folders.after, folder) == 0)
      folders.after.push_back(folder);
  };
  for (const std::string& toolkit :
       {value("CUDA_HOME"), value("CUDA_PATH"), root + "/usr/local/cuda"}) {
    if (toolkit.empty()) continue;
    add(toolkit + "/lib64");
    add(toolkit + "/lib");
  }
  const std::string home = value("HOME");
  std::vector<std::string> prefixes{value("VIRTUAL_ENV"), value("CONDA_PREFIX")};
  for (const std::string& prefix : python_prefixes(variable("PATH"))) prefixes.push_back(prefix);
  if (!home.empty()) prefixes.push_back(home + "/.local");
  for (const char* const prefix : {"/usr/local", "/usr"}) prefixes.push_back(root + prefix);
  for (const std::string& prefix : prefixes) {
    if (prefix.empty()) continue;
    for (const std::string& folder : package_folders(prefix)) add(folder);
  }
  return folders;
}

base::Result<Library> load_library(const std::string& name) {
  static std::mutex mutex;
  static std::map<std::string, base::Result<Library>> libraries;
  const std::lock_guard lock(mutex);
  const auto found = libraries.find(name);
  if (found != libraries.end()) return found->second;
  return libraries.emplace(name, search(name)).first->second;
}

void* find_function(const Library& library, const char* name) {
  return dlsym(library.handle, name);
}

std::string toolkit_library(const std::string& name) {
  return fmt::format("{}.so.{}", name, CUDART_VERSION / 1000);
}

}  // namespace cuda
