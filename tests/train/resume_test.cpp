// What a node goes on from: the newest checkpoint of its own config, or one before it.
#include "train/resume.h"

#include <algorithm>
#include <filesystem>

#include "support/catch.h"
#include "support/fault_storage.h"
#include "support/temporary_folder.h"
#include "train/failure_record.h"

namespace {

using Names = std::vector<std::string>;

class Run {
 public:
  Run() {
    config.node.run_directory = folder_.path();
    config.training.steps = 100;
  }

  void save(int64_t step) {
    checkpoint::save(*disk, {.run_directory = folder_.path()},
                     {.step = step, .shared_config = train::shared_config(config)}, {});
  }
  // Of the newest checkpoint, by a node whose config is this one; nothing is written.
  train::ResumePoint find() {
    test::FaultStorage storage(*disk, 1, test::FaultMode::kFail);
    return train::find_resume_point(storage, config);
  }
  int64_t resumed_step() { return find().reader->manifest().step; }
  std::string refusal() {
    try {
      find();
    } catch (const base::Error& error) {
      REQUIRE(error.code() == base::ExitCode::kBadInput);
      return std::string(error.what()) + " | " + error.hint();
    }
    return "";
  }
  void fail(int64_t step, int64_t checkpoint) {
    train::note_failure(*disk, folder_.path(), step, checkpoint);
  }
  std::string checkpoints() const { return folder_.file("checkpoints"); }

  train::RunConfig config;
  const std::unique_ptr<base::Storage> disk = base::make_disk_storage();

 private:
  const test::TemporaryFolder folder_;
};

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("resume: the newest checkpoint of the same config") {
  Run run;
  REQUIRE(run.find().reader == nullptr);
  run.save(10);
  run.save(20);
  REQUIRE(run.resumed_step() == 20);
  REQUIRE(run.find().changes.empty());
  REQUIRE(run.find().abandoned.empty());
}

TEST_CASE("resume: another config is refused with its keys and values") {
  Run run;
  run.save(10);
  run.config.training.steps = 200;
  REQUIRE(contains(run.refusal(), "training.steps: here 200, there 100"));
  REQUIRE(contains(run.refusal(), "--change training.steps=200"));
  run.config.seed = 7;
  run.config.changed_keys = {"training.steps"};
  REQUIRE(contains(run.refusal(), "seed: here 7, there 42"));
  run.config.seed = 42;
  const auto changes = run.find().changes;
  REQUIRE(changes == std::vector<checkpoint::ConfigChange>{
                         {.step = 10, .key = "training.steps", .before = "100", .after = "200"}});
}

TEST_CASE("resume: a run cannot become shorter than it is") {
  Run run;
  run.save(50);
  run.config.changed_keys = {"training.steps"};
  run.config.training.steps = 49;
  REQUIRE(contains(run.refusal(), "training.steps is 49"));
  run.config.training.steps = 50;
  REQUIRE(run.resumed_step() == 50);
}

TEST_CASE("resume: a checkpoint that does not say its config is another version's") {
  Run run;
  checkpoint::save(*run.disk, {.run_directory = run.config.node.run_directory}, {.step = 1}, {});
  REQUIRE(contains(run.refusal(), "another version of Atoll"));
}

TEST_CASE("resume: the same failure twice goes back one checkpoint") {
  Run run;
  for (const int64_t step : {10, 20, 30}) run.save(step);
  run.fail(33, 30);
  REQUIRE(run.resumed_step() == 30);
  run.fail(34, 30);  // Another step: the first of its kind.
  REQUIRE(run.resumed_step() == 30);
  run.fail(34, 30);
  const auto back = run.find();
  REQUIRE(back.reader->manifest().step == 20);
  REQUIRE(back.abandoned == Names{run.checkpoints() + "/step-00000030"});

  // Set aside it is neither the newest nor in the way of a save.
  const std::string aside = checkpoint::set_aside(*run.disk, back.abandoned[0]);
  REQUIRE(run.resumed_step() == 20);
  run.save(30);
  REQUIRE(run.disk->exists(aside + "/manifest.json"));
  REQUIRE(checkpoint::set_aside(*run.disk, run.checkpoints() + "/step-00000030") != aside);

  // And from there it may go back further.
  run.fail(34, 20);
  REQUIRE(run.resumed_step() == 20);
  run.fail(34, 20);
  REQUIRE(run.resumed_step() == 10);
}

TEST_CASE("resume: what is left is tried again where nothing is before it") {
  Run run;
  run.save(10);
  run.fail(12, 10);
  run.fail(12, 10);
  REQUIRE(run.resumed_step() == 10);
}

TEST_CASE("resume: a record that is none does not stop a node") {
  Run run;
  run.save(10);
  for (const char* text : {"", "{}", "{\"step\": \"x\", \"checkpoint\": 1, \"times\": 9}"}) {
    run.disk->write_atomically(run.config.node.run_directory + "/failure.json", std::string(text));
    REQUIRE(run.resumed_step() == 10);
  }
  run.fail(12, 10);
  REQUIRE(train::read_failure(*run.disk, run.config.node.run_directory)->times == 1);
}
