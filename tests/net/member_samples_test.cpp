// A member that asks for samples.
#include "net/member_stage.h"

namespace net {
namespace {

int64_t asked(const Stage& stage) {
  return stage.out.count(stage.coordinator(), MessageType::kNeedSamples);
}

void give_samples(Stage& stage, uint64_t first, uint64_t count) {
  stage.tell(MessageType::kSamples, encode(Samples{first, count}));
}

// Registers again on a new link and becomes active.
void come_back(Stage& stage) {
  stage.member->on_link_closed(stage.coordinator(), "reset", stage.now, stage.out);
  stage.pass(seconds(1));
  stage.start();
}

}  // namespace

TEST_CASE("member: samples are asked for once, and given to the trainer") {
  Stage stage;
  stage.start();
  stage.member->need_samples(40, stage.now, stage.out);
  REQUIRE(asked(stage) == 1);
  REQUIRE(stage.out.last<NeedSamples>(stage.coordinator(), MessageType::kNeedSamples)->count == 40);
  give_samples(stage, 60, 0);  // Those of another.
  REQUIRE(stage.last_event<SamplesGranted>()->count == 0);
  give_samples(stage, 60, 40);
  REQUIRE(stage.last_event<SamplesGranted>()->first == 60);
  REQUIRE(stage.last_event<SamplesGranted>()->count == 40);
  come_back(stage);
  REQUIRE(asked(stage) == 0);  // On the new link: it has what it wanted.
}

TEST_CASE("member: what was not answered is asked again") {
  Stage stage;
  SECTION("by one that was not active yet") {
    stage.member->need_samples(40, stage.now, stage.out);
    stage.welcome();
    REQUIRE(asked(stage) == 0);
  }
  SECTION("by one whose coordinator was lost") {
    stage.start();
    stage.member->need_samples(40, stage.now, stage.out);
    come_back(stage);
    REQUIRE(asked(stage) == 1);
    come_back(stage);
    REQUIRE(asked(stage) == 1);
    return;
  }
  stage.tell(MessageType::kCatchUp, encode(CatchUp{{{0, digest_of(1)}}, {}}));
  stage.tell(MessageType::kStart, encode(Start{.step = 7}));
  REQUIRE(asked(stage) == 1);
}

TEST_CASE("member: it remembers the most that it has heard, and says so when it registers") {
  MemberOptions options = Stage::default_options();
  options.samples = 25;
  Stage stage(options);
  const auto told = [&] {
    return stage.out.last<Hello>(stage.coordinator(), MessageType::kHello)->samples;
  };
  stage.start();
  REQUIRE(told() == 25);
  give_samples(stage, 80, 0);
  come_back(stage);
  REQUIRE(told() == 80);
  stage.member->need_samples(40, stage.now, stage.out);
  give_samples(stage, 80, 40);
  come_back(stage);
  REQUIRE(told() == 120);
  stage.tell(MessageType::kStart, encode(Start{.step = 7, .samples_void_below = 30}));
  REQUIRE(stage.last_event<Started>()->samples_void_below == 30);
}

TEST_CASE("member: samples that it did not ask for are no word of a coordinator") {
  Stage stage;
  stage.start();
  const LinkId link = stage.coordinator();
  const bool has_asked = GENERATE(true, false);
  if (has_asked) stage.member->need_samples(40, stage.now, stage.out);
  give_samples(stage, 0, 39);
  REQUIRE(stage.out.closed.contains(link));
  REQUIRE(stage.last_event<SamplesGranted>() == nullptr);
}

}  // namespace net
