// Damage of every kind to every file of the newest checkpoint: it is refused with the file's name,
// and the one before is taken. Random places come from a seed that failures print.
#include <filesystem>
#include <fstream>

#include "quick_folder.h"
#include "sample.h"
#include "support/catch.h"
#include "support/fault_storage.h"

using namespace checkpoint_test;

namespace {

using Names = std::vector<std::string>;

void write_file(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

// A run with the checkpoints 10 and 20, the latter to be damaged.
class DamagedRun {
 public:
  DamagedRun() {
    save(*disk_, folder_.path(), make_sample(10));
    directory_ = save(*disk_, folder_.path(), make_sample(20)).directory;
  }

  const std::string& run() const { return folder_.path(); }
  Names files() const { return disk_->list(directory_); }
  std::string path(const std::string& file) const { return directory_ + "/" + file; }
  std::string read(const std::string& file) const { return disk_->read_text(path(file)); }

  std::string refusal() const {
    return bad_input_of([&] { checkpoint::Reader::open(*disk_, directory_); });
  }

  // `file` is damaged now: both ways of opening find that, and say which file it is.
  void require_refused(const std::string& file) const {
    const std::string message = refusal();
    REQUIRE(contains(message, path(file)));
    Names warnings;
    const auto reader = checkpoint::open_newest(
        *disk_, folder_.path(), [&](const std::string& warning) { warnings.push_back(warning); });
    REQUIRE(equals(*reader, make_sample(10)));
    REQUIRE(warnings.size() == 1);
    REQUIRE(contains(warnings[0], message));
  }

  void require_whole() const {
    REQUIRE(equals(*checkpoint::Reader::open(*disk_, directory_), make_sample(20)));
  }

 private:
  const QuickFolder folder_;
  const std::unique_ptr<base::Storage> disk_ = base::make_disk_storage();
  std::string directory_;
};

// A disk that does not give one file, with whatever error; everything else works.
class UnreadableFile : public test::FaultStorage {
 public:
  UnreadableFile(base::Storage& inner, std::string path, const base::Error& error)
      : FaultStorage(inner, 0, test::FaultMode::kFail), path_(std::move(path)), error_(error) {}

  std::unique_ptr<base::MappedFile> map(const std::string& path) override {
    if (path == path_) throw error_;
    return FaultStorage::map(path);
  }
  std::string read_text(const std::string& path) override {
    if (path == path_) throw error_;
    return FaultStorage::read_text(path);
  }
  bool exists(const std::string& path) override {
    if (path == path_ && is_hidden) throw error_;
    return FaultStorage::exists(path);
  }
  std::vector<std::string> list(const std::string& path) override {
    if (path == path_) throw error_;
    return FaultStorage::list(path);
  }

  bool is_hidden = false;  // Not even whether it is there can be told.

 private:
  const std::string path_;
  const base::Error error_;
};

// What open_newest() throws; nothing may be passed over.
base::Error stop_of(base::Storage& storage, const std::string& run) {
  try {
    checkpoint::open_newest(storage, run, [](const std::string& warning) { FAIL(warning); });
  } catch (const base::Error& error) {
    return error;
  }
  FAIL("no exception");
  return base::bad_input("");
}

}  // namespace

TEST_CASE("A checkpoint that the disk does not give is not damaged", "[checkpoint]") {
  const DamagedRun run;
  const auto disk = base::make_disk_storage();
  Names paths = {run.run() + "/checkpoints"};
  for (const std::string& file : run.files()) paths.push_back(run.path(file));
  for (const std::string& path : paths) {
    for (const base::Error& error : {base::resource_lost("Input/output error"),
                                     base::bad_input("Permission denied", "a hint")}) {
      for (const bool is_hidden : {false, true}) {
        INFO(path << ": " << error.what());
        UnreadableFile storage(*disk, path, error);
        storage.is_hidden = is_hidden;
        const base::Error stop = stop_of(storage, run.run());
        REQUIRE(stop.code() == base::ExitCode::kResourceLost);
        REQUIRE(contains(stop.what(), error.what()));
        REQUIRE(!stop.hint().empty());
        REQUIRE(storage.operation_count() == 0);  // Nothing was touched.
      }
    }
  }
  run.require_whole();
}

TEST_CASE("A folder in a file's place is nothing that Atoll or a crash makes", "[checkpoint]") {
  const DamagedRun run;
  const auto disk = base::make_disk_storage();
  for (const std::string& file : run.files()) {
    const std::string whole = run.read(file);
    std::filesystem::remove(run.path(file));
    std::filesystem::create_directory(run.path(file));
    REQUIRE(stop_of(*disk, run.run()).code() == base::ExitCode::kResourceLost);
    std::filesystem::remove(run.path(file));
    write_file(run.path(file), whole);
  }
}

TEST_CASE("A checkpoint of another version of Atoll is not passed over", "[checkpoint]") {
  const DamagedRun run;
  const auto disk = base::make_disk_storage();
  std::string text = run.read("manifest.json");
  const std::string key = "\"format_version\": ";
  text.replace(text.find(key) + key.size(), 1, "9");
  const size_t digest_at = text.size() - 4 - 64;  // See docs/formats/checkpoint.md.
  const auto digest = base::sha256(std::as_bytes(std::span(text)).first(digest_at));
  write_file(run.path("manifest.json"), text.replace(digest_at, 64, digest.hex()));
  const base::Error stop = stop_of(*disk, run.run());
  REQUIRE(stop.code() == base::ExitCode::kBadInput);
  REQUIRE(contains(stop.what(), "format_version"));
}

TEST_CASE("A changed byte anywhere is found", "[checkpoint]") {
  const DamagedRun run;
  constexpr uint64_t kSeed = 11;
  base::Random random(kSeed);
  for (const std::string& file : run.files()) {
    const std::string whole = run.read(file);
    for (int trial = 0; trial < 60; ++trial) {
      const size_t at = size_t(random.below(whole.size()));
      const char change = char(1 + random.below(255));
      INFO("seed " << kSeed << ", " << file << ", byte " << at << " xor " << int(uint8_t(change)));
      std::string changed = whole;
      changed[at] = char(changed[at] ^ change);
      write_file(run.path(file), changed);
      run.require_refused(file);
    }
    write_file(run.path(file), whole);
    run.require_whole();
  }
}

TEST_CASE("A file that is too short, too long or missing is found", "[checkpoint]") {
  const DamagedRun run;
  for (const std::string& file : run.files()) {
    const std::string whole = run.read(file);
    for (const size_t length : {size_t{0}, size_t{1}, size_t{7}, size_t{8}, size_t{9},
                                whole.size() / 2, whole.size() - 8, whole.size() - 1}) {
      INFO(file << " cut to " << length << " bytes");
      write_file(run.path(file), whole.substr(0, length));
      run.require_refused(file);
    }
    write_file(run.path(file), whole + '\n');
    run.require_refused(file);
    std::filesystem::remove(run.path(file));
    run.require_refused(file);
    write_file(run.path(file), whole);
    run.require_whole();
  }
}

TEST_CASE("The message says what is wrong with a file", "[checkpoint]") {
  const DamagedRun run;
  const std::string file = "parameters.safetensors";
  const std::string whole = run.read(file);
  write_file(run.path(file), whole.substr(1));
  REQUIRE(contains(run.refusal(),
                   fmt::format("expected {} bytes, found {}", whole.size(), whole.size() - 1)));
  write_file(run.path(file), whole.substr(1) + whole.substr(0, 1));
  REQUIRE(contains(run.refusal(), "expected SHA-256 "));
  std::filesystem::remove(run.path(file));
  REQUIRE(contains(run.refusal(), "the file is missing"));
}

TEST_CASE("Files of two checkpoints do not mix", "[checkpoint]") {
  const DamagedRun run;
  const QuickFolder other_folder;
  const auto disk = base::make_disk_storage();
  const std::string other = save(*disk, other_folder.path(), make_sample(20, 9)).directory;
  write_file(run.path("parameters.safetensors"),
             disk->read_text(other + "/parameters.safetensors"));
  run.require_refused("parameters.safetensors");
}

TEST_CASE("When every checkpoint is damaged nothing is loaded", "[checkpoint]") {
  const QuickFolder folder;
  const auto disk = base::make_disk_storage();
  for (const int64_t step : {10, 20, 30}) {
    write_file(save(*disk, folder.path(), make_sample(step)).directory + "/outer-0.safetensors",
               "");
  }
  Names warnings;
  const std::string message = bad_input_of([&] {
    checkpoint::open_newest(*disk, folder.path(),
                            [&](const std::string& warning) { warnings.push_back(warning); });
  });
  REQUIRE(contains(message, folder.file("checkpoints")));
  REQUIRE(warnings.size() == 3);
  REQUIRE(contains(warnings[0], "step-00000030/outer-0.safetensors"));
  REQUIRE(contains(warnings[2], "step-00000010/outer-0.safetensors"));
}

TEST_CASE("A damaged checkpoint of a step is replaced by the next save of it", "[checkpoint]") {
  const QuickFolder folder;
  const auto disk = base::make_disk_storage();
  const auto broken = save(*disk, folder.path(), make_sample(20));
  std::filesystem::remove(broken.directory + "/manifest.json");
  save(*disk, folder.path(), make_sample(20, 2));
  REQUIRE(!disk->exists(broken.directory));
  REQUIRE(equals(*checkpoint::open_newest(*disk, folder.path(), {}), make_sample(20, 2)));
}
