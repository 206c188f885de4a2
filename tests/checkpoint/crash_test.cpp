// The process dies at every single operation of a save, in turn. After each death the newest
// checkpoint on the disk is the one before, bit for bit, or the new one, whole; and the next save
// works as if nothing had happened.
#include <filesystem>

#include "quick_folder.h"
#include "sample.h"
#include "support/catch.h"
#include "support/fault_storage.h"

using namespace checkpoint_test;
using test::FaultMode;

namespace {

using Names = std::vector<std::string>;

// What stands in the run before the save that dies.
struct Situation {
  const char* name;
  std::vector<Sample> before;
  bool has_leftover = false;  // An earlier save died, too.
};

class CrashTest {
 public:
  CrashTest(const Situation& situation, FaultMode mode) : situation_(situation), mode_(mode) {}

  void run() {
    const std::string before = folder_.file("before");
    disk_->make_directories(before);
    for (const Sample& sample : situation_.before) save(*disk_, before, sample, kKeep);
    if (situation_.has_leftover) {
      test::FaultStorage dying(*disk_, 15, FaultMode::kTorn);
      REQUIRE_THROWS_AS(save(dying, before, make_sample(20, 5), kKeep), base::Error);
      REQUIRE(disk_->exists(before + "/checkpoints/step-00000020.partial"));
    }
    const int64_t operations = test::with_every_fault(
        *disk_, mode_, [&](base::Storage& storage) { attempt(storage); },
        [&](int64_t fail_at) { examine(fail_at); });
    // Three files and a manifest, each with create, write, commit, and what is around them.
    REQUIRE(operations > 20);
    REQUIRE(saw_old_);
    REQUIRE(saw_new_after_crash_);
  }

 private:
  void attempt(base::Storage& storage) {
    run_ = folder_.file(fmt::format("run-{}", ++attempts_));
    std::filesystem::copy(folder_.file("before"), run_, std::filesystem::copy_options::recursive);
    save(storage, run_, new_sample_, kKeep);
  }

  void examine(int64_t fail_at) {
    INFO(situation_.name << ", " << (mode_ == FaultMode::kFail ? "fail" : "torn") << ", operation "
                         << fail_at);
    Names warnings;
    const auto reader = checkpoint::open_newest(
        *disk_, run_, [&](const std::string& warning) { warnings.push_back(warning); });
    REQUIRE(warnings.empty());
    const bool is_new = reader && equals(*reader, new_sample_);
    if (!is_new && situation_.before.empty()) REQUIRE(!reader);
    if (!is_new && !situation_.before.empty()) REQUIRE(equals(*reader, situation_.before.back()));
    if (fail_at == 0) REQUIRE(is_new);
    saw_old_ = saw_old_ || !is_new;
    saw_new_after_crash_ = saw_new_after_crash_ || (is_new && fail_at > 0);
    // Nothing that is listed is half of something.
    for (const std::string& directory : checkpoint::list(*disk_, run_))
      checkpoint::Reader::open(*disk_, directory);

    for (const Sample& next : {make_sample(20, 3), make_sample(30)}) {
      save(*disk_, run_, next, kKeep);
      REQUIRE(equals(*checkpoint::open_newest(*disk_, run_, {}), next));
    }
    REQUIRE(checkpoint::list(*disk_, run_).size() == size_t(kKeep));
    REQUIRE(disk_->list(run_ + "/checkpoints").size() == size_t(kKeep));
  }

  static constexpr int64_t kKeep = 2;
  const QuickFolder folder_;
  const std::unique_ptr<base::Storage> disk_ = base::make_disk_storage();
  const Situation& situation_;
  const FaultMode mode_;
  const Sample new_sample_ = make_sample(20, 2);
  int64_t attempts_ = 0;
  std::string run_;
  bool saw_old_ = false;
  bool saw_new_after_crash_ = false;
};

// Writes down what happens in which order.
class RecordingStorage : public base::Storage {
 public:
  explicit RecordingStorage(base::Storage& inner) : inner_(inner) {}

  std::unique_ptr<base::OutputFile> create(const std::string& path) override {
    events.push_back("create " + path);
    return inner_.create(path);
  }
  std::unique_ptr<base::MappedFile> map(const std::string& path) override {
    return inner_.map(path);
  }
  std::string read_text(const std::string& path) override { return inner_.read_text(path); }
  bool exists(const std::string& path) override { return inner_.exists(path); }
  void make_directories(const std::string& path) override { inner_.make_directories(path); }
  void rename(const std::string& source, const std::string& target) override {
    events.push_back("rename " + source + " " + target);
    inner_.rename(source, target);
  }
  void sync_directory(const std::string& path) override {
    events.push_back("sync " + path);
    inner_.sync_directory(path);
  }
  void remove_all(const std::string& path) override {
    events.push_back("remove " + path);
    inner_.remove_all(path);
  }
  std::vector<std::string> list(const std::string& path) override { return inner_.list(path); }

  Names events;

 private:
  base::Storage& inner_;
};

}  // namespace

TEST_CASE("A crash at any operation of a save loses nothing", "[checkpoint]") {
  const Situation situations[] = {
      {.name = "the first checkpoint of a run", .before = {}},
      {.name = "an old one expires", .before = {make_sample(5), make_sample(10)}},
      {.name = "a checkpoint of the same step", .before = {make_sample(10), make_sample(20)}},
      {.name = "after another crash", .before = {make_sample(10)}, .has_leftover = true},
  };
  for (const Situation& situation : situations) {
    for (const FaultMode mode : {FaultMode::kFail, FaultMode::kTorn})
      CrashTest(situation, mode).run();
  }
}

TEST_CASE("A power cut finds every step of a save on the disk before the next one",
          "[checkpoint]") {
  const QuickFolder folder;
  const auto disk = base::make_disk_storage();
  save(*disk, folder.path(), make_sample(1));
  RecordingStorage storage(*disk);
  save(storage, folder.path(), make_sample(2), 1);
  const std::string parent = folder.file("checkpoints");
  const std::string old_one = parent + "/step-00000001";
  const std::string new_one = parent + "/step-00000002";
  REQUIRE(storage.events == Names{"sync " + folder.path(),
                                  "create " + new_one + ".partial/empty.safetensors",
                                  "create " + new_one + ".partial/outer-0.safetensors",
                                  "create " + new_one + ".partial/parameters.safetensors",
                                  "create " + new_one + ".partial/tokenizer.json",
                                  "create " + new_one + ".partial/manifest.json",
                                  "rename " + new_one + ".partial " + new_one, "sync " + parent,
                                  "rename " + old_one + " " + old_one + ".partial",
                                  "remove " + old_one + ".partial"});
}
