// Samples of the run's data, word by word: who is given them, who is told, and what is remembered.
#include "net/coordinator_desk.h"

namespace net {
namespace {

Samples told(const Desk& desk, LinkId link) {
  const auto samples = desk.out.last<Samples>(link, MessageType::kSamples);
  REQUIRE(samples);
  return *samples;
}

void need(Desk& desk, LinkId link, uint64_t count) {
  desk.send(link, MessageType::kNeedSamples, encode(NeedSamples{count}));
}

Hello with_samples(Hello hello, uint64_t samples) {
  hello.samples = samples;
  return hello;
}

}  // namespace

TEST_CASE("samples: who asks gets the next ones, and the others hear of it") {
  Desk desk;
  const LinkId a = desk.join(desk.hello(1));
  const LinkId b = desk.join(desk.hello(2));
  desk.sync(a);
  desk.sync(b);
  REQUIRE(told(desk, b).first == 0);
  need(desk, a, 30);
  REQUIRE(told(desk, a).first == 0);
  REQUIRE(told(desk, a).count == 30);
  REQUIRE(told(desk, b).first == 30);
  REQUIRE(told(desk, b).count == 0);
  need(desk, b, 12);
  REQUIRE(told(desk, b).first == 30);
  REQUIRE(told(desk, b).count == 12);
  REQUIRE(told(desk, a).first == 42);
  REQUIRE(desk.coordinator->report().samples == 42);
  const LinkId late = desk.join_active(3);
  REQUIRE(told(desk, late).first == 42);
}

TEST_CASE("samples: who is not active is neither answered nor thrown out") {
  Desk desk;
  const LinkId a = desk.join(desk.hello(1));
  const LinkId b = desk.join(desk.hello(2));
  need(desk, a, 30);
  REQUIRE(told(desk, a).count == 0);
  desk.sync(a);
  need(desk, a, 5);
  REQUIRE(told(desk, a).first == 0);
  REQUIRE(told(desk, a).count == 5);
  REQUIRE(told(desk, b).first == 5);  // It hears of it, so that it knows with the state.
  REQUIRE(told(desk, b).count == 0);
  REQUIRE(!desk.out.closed.contains(b));
}

TEST_CASE("samples: a question that nobody asks costs the link") {
  Desk desk;
  const LinkId a = desk.join(desk.hello(1));
  const LinkId b = desk.join(desk.hello(2));
  desk.sync(a);
  desk.sync(b);
  const uint64_t count = GENERATE(uint64_t{0}, kSamplesAskedMax + 1, ~uint64_t{0});
  const auto bytes = std::as_bytes(std::span(&count, 1));
  desk.send(a, MessageType::kNeedSamples,
            std::make_shared<const std::vector<std::byte>>(bytes.begin(), bytes.end()));
  REQUIRE(desk.out.closed.contains(a));
  need(desk, b, kSamplesAskedMax);
  REQUIRE(told(desk, b).first == 0);
}

TEST_CASE("samples: a coordinator goes on behind what those with the state in force have heard") {
  CoordinatorOptions options = small_options();
  options.start_members = 3;
  options.adopt_newer = true;
  Desk desk(options);
  const LinkId a = desk.join(with_samples(desk.hello(1, 5), 300));
  desk.join(with_samples(desk.hello(2, 5), 280));
  desk.join(with_samples(desk.hello(3, 4), 9000));  // Of a state that is not the run's any more.
  desk.sync(a);
  REQUIRE(told(desk, a).first == 300);
  need(desk, a, 10);
  REQUIRE(told(desk, a).first == 300);

  SECTION("who comes later and claims more is not believed") {
    const LinkId liar = desk.join(with_samples(desk.hello(4, 5), kSamplesMax));
    desk.sync(liar);
    REQUIRE(told(desk, liar).first == 310);
  }
  SECTION("unless it brings a newer state") {
    const LinkId newer = desk.join(with_samples(desk.hello(4, 6), 400));
    desk.sync(newer);
    REQUIRE(told(desk, newer).first == 400);
  }
  SECTION("nor does a newer state with less take samples back") {
    const LinkId newer = desk.join(with_samples(desk.hello(4, 6), 20));
    desk.sync(newer);
    REQUIRE(told(desk, newer).first == 310);
  }
}

TEST_CASE("samples: what was handed out for a state that is lost is handed out again") {
  CoordinatorOptions options = small_options();
  options.start_members = 1;
  Desk desk(options);
  const LinkId a = desk.join(with_samples(desk.hello(1, 5), 300));
  desk.sync(a);
  need(desk, a, 50);
  desk.send(a, MessageType::kLeave, encode(Leave{"stopped"}));
  const LinkId b = desk.join(with_samples(desk.hello(2, 3), 120));
  desk.sync(b);
  REQUIRE(told(desk, b).first == 120);
}

TEST_CASE("samples: who may hold what others were given is told to drop it") {
  CoordinatorOptions options = small_options();
  options.start_members = 1;
  options.adopt_newer = true;
  Desk desk(options);
  const auto void_below = [&](LinkId link) {
    return desk.out.last<Start>(link, MessageType::kStart)->samples_void_below;
  };
  const LinkId a = desk.join(with_samples(desk.hello(1, 5), 100), 7);
  desk.sync(a);
  REQUIRE(void_below(a) == 0);
  need(desk, a, 50);
  const uint32_t term = desk.out.last(a, MessageType::kStart)->authority.term;

  SECTION("one that has heard no more than we had, or has heard it from us, keeps what it has") {
    const LinkId b = desk.join(with_samples(desk.hello(2, 5), 100), 7);
    desk.sync(b);
    REQUIRE(void_below(b) == 0);
    const LinkId again = desk.join(with_samples(desk.hello(1, 5), 150), term);
    desk.pass(seconds(2));  // Nothing is heard from the one before.
    desk.answer_dials(1);
    desk.sync(again);
    REQUIRE(void_below(again) == 0);
  }
  SECTION("one that has heard more from the coordinator before us does not") {
    const LinkId b = desk.join(with_samples(desk.hello(2, 5), 120), 7);
    desk.sync(b);
    REQUIRE(void_below(b) == kSamplesMax);
  }
  SECTION("nor do those whom we gave any before a newer state came") {
    const LinkId newer = desk.join(with_samples(desk.hello(2, 9), 700), 7);
    desk.sync(newer);
    desk.sync(a);
    REQUIRE(void_below(a) == 150);
    need(desk, a, 50);
    REQUIRE(told(desk, a).first == 700);
  }
}

TEST_CASE("samples: a run does not hand out more than it has") {
  CoordinatorOptions options = small_options();
  options.start_members = 1;
  Desk desk(options);
  const LinkId a = desk.join(with_samples(desk.hello(1, 5), kSamplesMax - 10));
  desk.sync(a);
  need(desk, a, 10);
  REQUIRE(told(desk, a).count == 10);
  need(desk, a, 1);
  REQUIRE(desk.out.closed.contains(a));
}

}  // namespace net
