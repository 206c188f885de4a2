// Saving, finding and opening checkpoints. Everything hangs on one rename: a folder with a final
// name is whole, and a folder that is being written or removed ends in ".partial", so that no crash
// leaves half of something under a final name.
#include "checkpoint/checkpoint.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <map>
#include <utility>

#include "checkpoint/manifest.h"
#include "checkpoint/partial_folder.h"
#include "checkpoint/safetensors.h"

namespace checkpoint {
namespace {

constexpr int64_t kRevisionMax = 1'000'000'000;

// "step-00001200", or "step-00001200.2" where a checkpoint of that step was there already: the new
// one stands beside the old one until it is whole, so that at every moment one of them can be
// loaded.
struct FolderName {
  int64_t step = 0;
  int64_t revision = 1;
  auto operator<=>(const FolderName&) const = default;

  std::string text() const {
    return revision == 1 ? fmt::format("step-{:08}", step)
                         : fmt::format("step-{:08}.{}", step, revision);
  }
};

std::optional<FolderName> parse_folder_name(const std::string& text) {
  constexpr std::string_view kPrefix = "step-";
  if (!text.starts_with(kPrefix)) return std::nullopt;
  const char* const end = text.data() + text.size();
  FolderName name;
  const char* at = std::from_chars(text.data() + kPrefix.size(), end, name.step).ptr;
  if (at != end && *at == '.') std::from_chars(at + 1, end, name.revision);
  if (name.step < 0 || name.revision < 1 || name.revision > kRevisionMax) return std::nullopt;
  // Only the one spelling that text() gives counts: nothing else is ours to load or to remove.
  return name.text() == text ? std::optional(name) : std::nullopt;
}

std::string folder_of_run(const std::string& run_directory) {
  return run_directory + "/checkpoints";
}

// What the storage says while checkpoints are read is about the disk, not about them: they may be
// whole, so no other one may take their place, and nothing may be changed.
template <class Read>
auto read_disk(const Read& read) {
  try {
    return read();
  } catch (const base::Error& error) {
    throw base::resource_lost(error.what(), error.hint().empty()
                                                ? "start again once the disk can be read"
                                                : error.hint());
  }
}

// Sorted, oldest first.
std::vector<FolderName> list_folders(base::Storage& storage, const std::string& parent) {
  std::vector<FolderName> folders;
  for (const std::string& entry : read_disk([&] { return storage.list(parent); })) {
    if (const auto name = parse_folder_name(entry)) folders.push_back(*name);
  }
  std::sort(folders.begin(), folders.end());
  return folders;
}

void remove_leftovers(base::Storage& storage, const std::string& parent) {
  for (const std::string& entry : read_disk([&] { return storage.list(parent); })) {
    if (!entry.ends_with(kPartialSuffix)) continue;
    if (parse_folder_name(
            entry.substr(0, entry.size() - std::string_view(kPartialSuffix).size()))) {
      storage.remove_all(parent + "/" + entry);
    }
  }
}

FolderName next_folder(const std::vector<FolderName>& existing, int64_t step) {
  FolderName next = {.step = step};
  for (const FolderName& folder : existing) {
    if (folder.step == step) next.revision = folder.revision + 1;
  }
  return next;
}

// What is there no longer needed once `saved` is whole: other revisions of its step, and of the
// steps before it all but the newest keep - 1. Later steps, left behind where a run went back, are
// not older and stay.
std::vector<FolderName> find_expired(const std::vector<FolderName>& existing,
                                     const FolderName& saved, int64_t keep) {
  std::vector<FolderName> expired;
  int64_t kept = 1;
  for (auto folder = existing.rbegin(); folder != existing.rend(); ++folder) {
    if (folder->step > saved.step) continue;
    if (folder->step < saved.step && kept < keep) {
      ++kept;
    } else {
      expired.push_back(*folder);
    }
  }
  return expired;
}

// Everything into `folder`, the manifest last. Returns the number of bytes.
int64_t write_folder(base::Storage& storage, const std::string& folder, const Manifest& manifest,
                     const std::vector<FileSource>& files) {
  ManifestFile content = {.manifest = manifest};
  int64_t bytes = 0;
  for (const FileSource& source : files) {
    CHECK(is_file_name(source.name) && !content.files.contains(source.name), "file name {}",
          source.name);
    const auto file = storage.create(folder + "/" + source.name);
    const FileRecord record = write_safetensors(*file, source);
    file->commit();
    content.files[source.name] = record;
    bytes += record.bytes;
  }
  if (std::string& definition = content.manifest.tokenizer.definition; !definition.empty()) {
    const auto text = std::as_bytes(std::span(definition));
    storage.write_atomically(folder + "/" + kTokenizerName, text);
    content.tokenizer_file = {.bytes = int64_t(text.size()), .sha256 = base::sha256(text)};
    bytes += int64_t(text.size());
    definition.clear();
  }
  const std::string text = write_manifest(content);
  storage.write_atomically(folder + "/" + kManifestName, text);
  return bytes + int64_t(text.size());
}

std::string parent_of(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

class DiskReader : public Reader {
 public:
  DiskReader(base::Storage& storage, const std::string& directory) : directory_(directory) {
    const std::string manifest_path = directory + "/" + kManifestName;
    require_there(storage, manifest_path);
    ManifestFile content =
        read_manifest(read_disk([&] { return storage.read_text(manifest_path); }), manifest_path);
    manifest_ = std::move(content.manifest);
    if (content.tokenizer_file)
      manifest_.tokenizer.definition = read_tokenizer(storage, *content.tokenizer_file);
    for (const auto& [name, record] : content.files)
      files_.emplace(name, open_file(storage, name, record));
  }

  const Manifest& manifest() const override { return manifest_; }
  bool has_file(const std::string& file) const override { return files_.contains(file); }

  std::vector<std::string> tensor_names(const std::string& file) const override {
    std::vector<std::string> names;
    for (const auto& [name, view] : find_file(file).tensors) names.push_back(name);
    return names;
  }

  void read(const std::string& file, const std::string& tensor, const backend::Shape& shape,
            int64_t first, std::span<float> elements) const override {
    const SafetensorsView& view = find_tensor(file, tensor);
    check_shape(file, tensor, view, shape);
    const int64_t count = int64_t(elements.size());
    CHECK(first >= 0 && first <= shape.element_count() && count <= shape.element_count() - first,
          "{}: elements {} to {} of {}", tensor, first, first + count, shape.element_count());
    if (count > 0) {
      std::memcpy(elements.data(), view.bytes.data() + size_t(first) * sizeof(float),
                  elements.size_bytes());
    }
  }

  std::span<const std::byte> bytes(const std::string& file,
                                   const std::string& name) const override {
    const SafetensorsView& view = find_tensor(file, name);
    if (view.dtype != "U8") {
      throw unexpected(file, fmt::format("{}: expected U8, found {}", name, view.dtype));
    }
    return view.bytes;
  }

 private:
  struct File {
    std::unique_ptr<base::MappedFile> mapping;
    std::map<std::string, SafetensorsView> tensors;
  };

  static void require_there(base::Storage& storage, const std::string& path) {
    if (!read_disk([&] { return storage.exists(path); }))
      throw damaged(path, "the file is missing");
  }

  // The file, whose bytes are those of `record`.
  std::unique_ptr<base::MappedFile> map_verified(base::Storage& storage, const std::string& path,
                                                 const FileRecord& record) const {
    require_there(storage, path);
    auto mapping = read_disk([&] { return storage.map(path); });
    const auto bytes = mapping->bytes();
    if (int64_t(bytes.size()) != record.bytes) {
      throw damaged(path, fmt::format("expected {} bytes, found {}", record.bytes, bytes.size()));
    }
    if (const base::Digest found = base::sha256(bytes); found != record.sha256) {
      throw damaged(path,
                    fmt::format("expected SHA-256 {}, found {}", record.sha256.hex(), found.hex()));
    }
    return mapping;
  }

  File open_file(base::Storage& storage, const std::string& name, const FileRecord& record) const {
    const std::string path = directory_ + "/" + name;
    File file = {.mapping = map_verified(storage, path, record)};
    file.tensors = parse_safetensors(file.mapping->bytes(), path);
    return file;
  }

  std::string read_tokenizer(base::Storage& storage, const FileRecord& record) const {
    const auto file = map_verified(storage, directory_ + "/" + kTokenizerName, record);
    const auto bytes = file->bytes();
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  // The checkpoint is whole, but not what the caller has room for.
  base::Error unexpected(const std::string& file, const std::string& found) const {
    return base::bad_input(fmt::format("{}/{}: {}", directory_, file, found),
                           "was the checkpoint made with another model or another configuration?");
  }

  const File& find_file(const std::string& file) const {
    const auto found = files_.find(file);
    if (found == files_.end()) throw unexpected(file, "the checkpoint has no such file");
    return found->second;
  }

  const SafetensorsView& find_tensor(const std::string& file, const std::string& tensor) const {
    const auto& tensors = find_file(file).tensors;
    const auto found = tensors.find(tensor);
    if (found == tensors.end())
      throw unexpected(file, fmt::format("there is no tensor \"{}\"", tensor));
    return found->second;
  }

  void check_shape(const std::string& file, const std::string& tensor, const SafetensorsView& view,
                   const backend::Shape& shape) const {
    std::vector<int64_t> expected;
    for (int axis = 0; axis < shape.rank(); ++axis) expected.push_back(shape[axis]);
    if (view.dtype == "F32" && view.shape == expected) return;
    throw unexpected(
        file, fmt::format("{}: expected F32 [{}], found {} [{}]", tensor, fmt::join(expected, ", "),
                          view.dtype, fmt::join(view.shape, ", ")));
  }

  const std::string directory_;
  Manifest manifest_;
  std::map<std::string, File> files_;
};

// What was written a moment ago reads back, or the disk is not to be trusted.
void require_kept(base::Storage& storage, const std::string& directory) {
  try {
    Reader::open(storage, directory);
  } catch (const Damaged& error) {
    throw base::resource_lost(
        fmt::format("the disk has not kept what was written: {}", error.what()),
        "the disk may be broken: see the kernel's log");
  }
}

}  // namespace

SaveReport save(base::Storage& storage, const SaveOptions& options, const Manifest& manifest,
                const std::vector<FileSource>& files) {
  CHECK(options.keep >= 1 && manifest.step >= 0);
  const std::string parent = folder_of_run(options.run_directory);
  storage.make_directories(parent);
  storage.sync_directory(options.run_directory);
  remove_leftovers(storage, parent);

  const auto existing = list_folders(storage, parent);
  const FolderName name = next_folder(existing, manifest.step);
  SaveReport report = {.directory = parent + "/" + name.text()};
  {
    PartialFolder partial(storage, report.directory);
    report.bytes = write_folder(storage, partial.path(), manifest, files);
    partial.publish();
  }
  storage.sync_directory(parent);

  for (const FolderName& expired : find_expired(existing, name, options.keep)) {
    const std::string path = parent + "/" + expired.text();
    const std::string leftover = path + kPartialSuffix;
    storage.rename(path, leftover);
    storage.remove_all(leftover);
  }
  return report;
}

SaveReport save_as(base::Storage& storage, const std::string& path, const Manifest& manifest,
                   const std::vector<FileSource>& files) {
  const std::string directory = without_slash(path);
  storage.remove_all(directory + kPartialSuffix);
  PartialFolder partial(storage, directory);
  const SaveReport report = {.directory = directory,
                             .bytes = write_folder(storage, partial.path(), manifest, files)};
  require_kept(storage, partial.path());
  partial.publish();
  storage.sync_directory(parent_of(directory));
  return report;
}

std::unique_ptr<Reader> Reader::open(base::Storage& storage, const std::string& directory) {
  return std::make_unique<DiskReader>(storage, directory);
}

std::vector<std::string> list(base::Storage& storage, const std::string& run_directory,
                              int64_t step_begin, int64_t step_end) {
  const std::string parent = folder_of_run(run_directory);
  std::vector<std::string> directories;
  for (const FolderName& folder : list_folders(storage, parent)) {
    if (folder.step >= step_begin && folder.step < step_end)
      directories.push_back(parent + "/" + folder.text());
  }
  return directories;
}

std::unique_ptr<Reader> open_newest(base::Storage& storage, const std::string& run_directory,
                                    const std::function<void(const std::string&)>& warn,
                                    int64_t step_end) {
  const auto directories = list(storage, run_directory, 0, step_end);
  for (auto directory = directories.rbegin(); directory != directories.rend(); ++directory) {
    try {
      return Reader::open(storage, *directory);
    } catch (const Damaged& error) {
      warn(fmt::format("checkpoint passed over: {}", error.what()));
    }
  }
  if (directories.empty()) return nullptr;
  throw base::bad_input(
      fmt::format("{}: none of the {} checkpoints can be used", folder_of_run(run_directory),
                  directories.size()),
      "the warnings above say why; to start from the beginning, move the folder away");
}

std::string set_aside(base::Storage& storage, const std::string& directory) {
  std::string name;
  for (int64_t number = 1; name.empty() || storage.exists(name); ++number)
    name = fmt::format("{}.aside-{}", directory, number);
  storage.rename(directory, name);
  return name;
}

}  // namespace checkpoint
