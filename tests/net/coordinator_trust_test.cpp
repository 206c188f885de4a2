// What the coordinator does not believe, and who does not contribute.
#include "net/coordinator_desk.h"
#include "net/security_rig.h"

namespace net {
namespace {

CoordinatorOptions strict_options(int64_t members) {
  CoordinatorOptions options = small_options();
  options.start_members = members;
  options.inner_steps = 10;
  options.tokens_per_step = 100;
  options.steps_total = 1000;
  return options;
}

struct Members {
  Desk desk;
  std::vector<LinkId> links;
  explicit Members(int64_t count) : desk(strict_options(count)) {
    for (uint64_t key = 1; key <= uint64_t(count); ++key)
      links.push_back(desk.join(desk.hello(key)));
    for (const LinkId link : links) desk.sync(link);
  }
  // A round in which all that are in it say that they are done.
  void round(uint64_t number, const std::vector<LinkId>& ready) {
    for (const LinkId link : ready) desk.ready(link, 500, number, number * 10);
    for (const LinkId link : links) {
      const Message* const open = desk.out.last(link, MessageType::kOpen);
      if (open != nullptr && open->authority.round == number) desk.done(link, 5);
    }
  }
};

// --- Who is let in.

TEST_CASE("trust: members are told who is on the list, and at once what changes in it") {
  CoordinatorOptions options = strict_options(1);
  const auto allowed = allowing({1, 2});
  options.allowed = allowed;
  Desk desk(options);
  const LinkId a = desk.join(desk.hello(1));
  const auto told = [&] { return desk.out.last<Keys>(a, MessageType::kKeys)->allowed; };
  REQUIRE(told() == allowed->list());
  allowed->set({node_key(2).id()});
  desk.pass(milliseconds(100));
  REQUIRE(told() == std::vector<NodeId>{node_key(2).id()});
  const int64_t count = desk.out.count(a, MessageType::kKeys);
  desk.pass(milliseconds(100));
  REQUIRE(desk.out.count(a, MessageType::kKeys) == count);
}

TEST_CASE("trust: a node has the number of the key that it has proved") {
  Desk desk(strict_options(1));
  const NodeId node = node_key(5).id();
  const LinkId liar = desk.connect(node);
  desk.send(liar, MessageType::kHello, encode(desk.hello(node_key(6).id().number())));
  REQUIRE(desk.reject_reason(liar).find("node key") != std::string::npos);
  const LinkId honest = desk.connect(node);
  desk.send(honest, MessageType::kHello, encode(desk.hello(node.number())));
  REQUIRE(desk.is_told(honest, MessageType::kWelcome));
}

TEST_CASE("trust: who is rejected, leaves, is lost or put out is told with the first cause") {
  CoordinatorOptions options = strict_options(3);
  std::vector<Incident> told;
  options.on_incident = [&](Incident one) { told.push_back(std::move(one)); };
  Desk desk(options);
  std::vector<LinkId> links;
  for (const uint64_t key : {1, 2, 3}) links.push_back(desk.join(desk.hello(key)));
  for (const LinkId link : links) desk.sync(link);
  REQUIRE(told.empty());
  Hello other = desk.hello(4);
  other.config = digest_of(7);
  desk.join(other);
  desk.send(links[2], MessageType::kLeave, encode(Leave{"its operator says so"}));
  desk.coordinator->on_link_closed(links[1], "it was reset", desk.now, desk.out);
  REQUIRE(told.size() == 3);
  REQUIRE((told[0].kind == Incident::Kind::kRejected && told[0].who == "node-4 (10.1.1.1:5555)"));
  REQUIRE(told[0].reason.starts_with("your configuration has the digest"));
  REQUIRE((told[1].kind == Incident::Kind::kLeft && told[1].who == "node-3"));
  REQUIRE(told[1].reason == "its operator says so");
  REQUIRE((told[2].kind == Incident::Kind::kLost && told[2].who == "node-2"));
  REQUIRE(told[2].reason == "it was reset");
}

// --- Who contributes.

TEST_CASE("trust: who cannot be dialled dials the others and owns nothing, until it can be") {
  Desk desk(strict_options(3));
  const LinkId a = desk.join(desk.hello(1));
  const LinkId b = desk.join(desk.hello(2));
  desk.dials = Desk::Dials::kRefused;
  const LinkId c = desk.join(desk.hello(3));
  const auto notice = desk.out.last<Notice>(c, MessageType::kNotice);
  REQUIRE(notice);
  REQUIRE(notice->contributes);
  REQUIRE(notice->reason.find("connection refused") != std::string::npos);
  REQUIRE(notice->reason.find("node.advertise") != std::string::npos);
  const auto visits = desk.out.last<Visits>(c, MessageType::kVisits)->peers;
  REQUIRE(visits.size() == 2);
  REQUIRE((visits[0].peer == 0 && visits[0].node_key == 1 && !visits[0].data.host.empty()));
  for (const LinkId link : {a, b}) REQUIRE(!desk.is_told(link, MessageType::kVisits));
  for (const LinkId link : {a, b, c}) desk.sync(link);
  for (const LinkId link : {a, b, c}) desk.ready(link, 500);
  const auto open = desk.out.last<Open>(c, MessageType::kOpen);
  REQUIRE(open->contributors.size() == 3);
  REQUIRE(open->contributors[2].data.host.empty());
  for (const uint8_t owner : open->owners) REQUIRE(owner < 2);
  // Whoever joins meanwhile can have the state of those who can be dialled only.
  const LinkId late = desk.join(desk.hello(4));
  REQUIRE(desk.out.last<CatchUp>(late, MessageType::kCatchUp)->donors.size() == 2);
  for (const LinkId link : {a, b, c}) desk.done(link, 5);
  REQUIRE(desk.is_told(c, MessageType::kCommit));
  // The port is opened.
  desk.dials = Desk::Dials::kPending;
  for (int64_t waited = 0; waited < 20; ++waited) {
    desk.pass_alive(seconds(1), {a, b, c});
    desk.answer_dials(3);
  }
  REQUIRE(desk.out.last<Visits>(c, MessageType::kVisits)->peers.empty());
  REQUIRE(desk.out.count(c, MessageType::kNotice) == 1);
}

TEST_CASE(
    "trust: who has no data port watches, and is neither dialled, nor waited for, nor asked") {
  Desk desk(strict_options(1));
  const LinkId a = desk.join(desk.hello(1));
  desk.sync(a);
  Hello hello = desk.hello(2);
  hello.listen = {"", 0};
  const LinkId watcher = desk.join(hello);
  REQUIRE(desk.out.dialled.size() == 1);
  desk.sync(watcher);
  REQUIRE(!desk.out.last<Notice>(watcher, MessageType::kNotice)->contributes);
  desk.ready(a, 500);
  const auto open = desk.out.last<Open>(watcher, MessageType::kOpen);
  REQUIRE(open);
  REQUIRE(open->contributors.size() == 1);
  desk.done(a, 5);
  desk.pass_alive(seconds(3), {a, watcher});
  REQUIRE(desk.is_told(a, MessageType::kCommit));
  REQUIRE(!desk.is_told(watcher, MessageType::kVisits));
  desk.pass_alive(seconds(60), {a, watcher});
  REQUIRE(desk.out.dialled.size() == 1);
}

TEST_CASE("trust: where nobody can be dialled no round is opened, until somebody can be") {
  Desk desk(strict_options(2));
  desk.dials = Desk::Dials::kRefused;
  const LinkId a = desk.join(desk.hello(1));
  const LinkId b = desk.join(desk.hello(2));
  for (const LinkId link : {a, b}) desk.sync(link);
  for (const LinkId link : {a, b}) desk.ready(link, 500);
  for (int64_t waited = 0; waited < 40; ++waited) {
    desk.pass_alive(seconds(1), {a, b});
    desk.refuse_dials();
  }
  for (const LinkId link : {a, b}) {
    REQUIRE(!desk.is_told(link, MessageType::kOpen));
    const auto notice = desk.out.last<Notice>(link, MessageType::kNotice);
    REQUIRE(!notice->contributes);
    REQUIRE(notice->reason.find("none can be dialled") != std::string::npos);
    REQUIRE(desk.out.count(link, MessageType::kNotice) == 1);
  }
  desk.dials = Desk::Dials::kPending;
  for (int64_t waited = 0; waited < 61; ++waited) {
    desk.pass_alive(seconds(1), {a, b});
    desk.answer_dials(1);
  }
  const auto open = desk.out.last<Open>(b, MessageType::kOpen);
  REQUIRE(open);
  REQUIRE(open->contributors.size() == 2);
  for (const uint8_t owner : open->owners) REQUIRE(owner == 0);
}

TEST_CASE("trust: a round ends when the last one that can be dialled falls out of it") {
  Desk desk(strict_options(3));
  const LinkId a = desk.join(desk.hello(1));
  desk.dials = Desk::Dials::kRefused;
  const LinkId b = desk.join(desk.hello(2));
  const LinkId c = desk.join(desk.hello(3));
  for (const LinkId link : {a, b, c}) desk.sync(link);
  for (const LinkId link : {a, b, c}) desk.ready(link, 500);
  REQUIRE(desk.is_told(c, MessageType::kOpen));
  desk.coordinator->on_link_closed(a, "gone", desk.now, desk.out);
  for (const LinkId link : {b, c}) {
    REQUIRE(desk.is_told(link, MessageType::kAbort));
    REQUIRE(!desk.is_told(link, MessageType::kReown));
  }
}

TEST_CASE("trust: one alone that cannot be dialled gives the state to those who can be") {
  Desk desk(strict_options(1));
  desk.dials = Desk::Dials::kRefused;
  const LinkId a = desk.join(desk.hello(1));
  desk.sync(a);
  desk.ready(a, 500);
  desk.done(a, 5);
  desk.send(a, MessageType::kApplied, encode(Applied{digest_of(7)}), {.round = 1});
  desk.dials = Desk::Dials::kAnswered;
  Hello hello = desk.hello(2);
  hello.listen.port = 4001;
  const LinkId b = desk.join(hello);
  const auto donors = desk.out.last<CatchUp>(b, MessageType::kCatchUp)->donors;
  REQUIRE(donors.size() == 1);
  REQUIRE(donors[0].data.host.empty());
  REQUIRE(desk.out.last<Visits>(a, MessageType::kVisits)->peers.at(0).node_key == 2);
}

TEST_CASE("trust: whom the coordinator before could not dial does not wait for another try") {
  Desk desk(strict_options(2));
  const LinkId a = desk.join(desk.hello(1));
  desk.dials = Desk::Dials::kPending;
  Hello hello = desk.hello(2);
  hello.was_reachable = false;
  const LinkId b = desk.join(hello);
  for (const LinkId link : {a, b}) desk.sync(link);
  REQUIRE(desk.is_told(b, MessageType::kStart));
  REQUIRE(desk.is_told(b, MessageType::kVisits));
  desk.answer_dials(2);
  REQUIRE(desk.out.last<Visits>(b, MessageType::kVisits)->peers.empty());
}

TEST_CASE("trust: nobody is active before its data port was tried") {
  Desk desk(strict_options(1));
  desk.dials = Desk::Dials::kPending;
  const LinkId a = desk.join(desk.hello(1));
  desk.sync(a);
  REQUIRE(!desk.is_told(a, MessageType::kStart));
  desk.answer_dials(1);
  REQUIRE(desk.is_told(a, MessageType::kStart));
}

TEST_CASE("trust: one alone trains on, reachable or not") {
  Desk desk(strict_options(1));
  desk.dials = Desk::Dials::kRefused;
  const LinkId a = desk.join(desk.hello(1));
  desk.sync(a);
  desk.ready(a, 500);
  REQUIRE(desk.out.last<Open>(a, MessageType::kOpen)->contributors.size() == 1);
  const auto notice = desk.out.last<Notice>(a, MessageType::kNotice);
  REQUIRE(desk.out.count(a, MessageType::kNotice) == 1);
  REQUIRE(notice->reason.find("trains alone") != std::string::npos);
}

TEST_CASE("trust: who was left out keeps up first, and is not waited for meanwhile") {
  Members members(3);
  Desk& desk = members.desk;
  auto& links = members.links;
  for (const LinkId link : links) desk.ready(link, 500);
  for (int64_t i = 0; i < 32; ++i) {
    desk.heartbeat(links[0], uint64_t(i), 0b100);
    desk.heartbeat(links[1], uint64_t(i), 0b100);
    desk.heartbeat(links[2], uint64_t(i));
    desk.pass(seconds(1));
  }
  REQUIRE(desk.out.last<Reown>(links[0], MessageType::kReown)->excluded == std::vector<PeerId>{2});
  const auto notice = desk.out.last<Notice>(links[2], MessageType::kNotice);
  REQUIRE(!notice->contributes);
  REQUIRE(notice->reason.find("does not deliver its contribution") != std::string::npos);
  for (const size_t m : {0, 1}) desk.done(links[m], 5);
  REQUIRE(desk.is_told(links[0], MessageType::kCommit));
  for (const size_t m : {0, 1}) {
    desk.send(links[m], MessageType::kApplied, encode(Applied{digest_of(7)}), {.round = 1});
  }
  desk.sync(links[2]);
  // The next round opens without waiting for it; it is in time, and contributes to the one after.
  members.round(2, {links[0], links[1]});
  REQUIRE(desk.out.last<Open>(links[2], MessageType::kOpen)->contributors.size() == 2);
  REQUIRE(desk.out.last(links[2], MessageType::kCommit)->authority.round == 2);
  REQUIRE(desk.out.last<Notice>(links[2], MessageType::kNotice)->contributes);
  members.round(3, links);
  REQUIRE(desk.out.last<Open>(links[2], MessageType::kOpen)->contributors.size() == 3);
}

TEST_CASE("trust: nobody is left out where nobody could show that it keeps up") {
  CoordinatorOptions options = strict_options(2);
  options.members_min = 2;
  Desk desk(options);
  std::vector<LinkId> links;
  for (uint64_t key = 1; key <= 2; ++key) links.push_back(desk.join(desk.hello(key)));
  for (const LinkId link : links) desk.sync(link);
  for (const LinkId link : links) desk.ready(link, 500);
  for (int64_t i = 0; i < 32; ++i) {
    desk.heartbeat(links[0], uint64_t(i), 0b10);
    desk.heartbeat(links[1], uint64_t(i));
    desk.pass(seconds(1));
  }
  REQUIRE(desk.is_told(links[0], MessageType::kAbort));
  // What both said stands.
  REQUIRE(desk.out.count(links[1], MessageType::kOpen) == 2);
  REQUIRE(desk.out.last<Open>(links[1], MessageType::kOpen)->contributors.size() == 2);
}

TEST_CASE("trust: a run is not taken over by fewer than half of those for whom a round opened") {
  Members members(4);
  Desk& desk = members.desk;
  auto& links = members.links;
  for (const LinkId link : links) desk.ready(link, 500);
  for (const size_t gone : {0, 1}) {
    desk.coordinator->on_link_closed(links[gone], "gone", desk.now, desk.out);
  }
  REQUIRE(!desk.is_told(links[3], MessageType::kAbort));
  desk.coordinator->on_link_closed(links[2], "gone", desk.now, desk.out);
  REQUIRE(desk.is_told(links[3], MessageType::kAbort));
  REQUIRE(!desk.is_told(links[3], MessageType::kCommit));
  // What one alone then makes is a round that was opened for one.
  const auto open = desk.out.last<Open>(links[3], MessageType::kOpen);
  REQUIRE(open->contributors.size() == 1);
}

TEST_CASE("trust: who only receives has no say about the state") {
  Desk desk(strict_options(2));
  const LinkId a = desk.join(desk.hello(1));
  const LinkId b = desk.join(desk.hello(2));
  for (const LinkId link : {a, b}) desk.sync(link);
  std::vector<LinkId> fakes, all = {a, b};
  for (uint64_t key = 10; key < 18; ++key) {
    fakes.push_back(desk.join(desk.hello(key)));
    desk.sync(fakes.back());
    all.push_back(fakes.back());
  }
  // They are late for a round, so they must keep up first.
  for (const LinkId link : {a, b}) desk.ready(link, 500);
  desk.pass_alive(small_options().ready_grace + seconds(1), all);
  for (const LinkId link : {a, b}) desk.done(link, 5);
  desk.pass_alive(small_options().round_timeout + seconds(1), all);
  REQUIRE(desk.is_told(a, MessageType::kCommit));
  for (const LinkId link : {a, b})
    desk.send(link, MessageType::kApplied, encode(Applied{digest_of(70)}), {.round = 1});
  for (const LinkId link : fakes) {
    REQUIRE(!desk.out.last<Notice>(link, MessageType::kNotice)->contributes);
    desk.sync(link);
  }
  for (const LinkId link : {a, b}) desk.ready(link, 500, 2, 20);
  for (const LinkId link : {a, b}) desk.done(link, 5);
  for (const LinkId link : fakes) desk.done(link, 66);
  desk.pass_alive(seconds(3), all);
  REQUIRE(desk.out.last<Commit>(a, MessageType::kCommit)->results == digest_of(5));
  for (const LinkId link : fakes) {
    desk.send(link, MessageType::kApplied, encode(Applied{digest_of(66)}), {.round = 2});
  }
  for (const LinkId link : {a, b}) {
    desk.send(link, MessageType::kApplied, encode(Applied{digest_of(77)}), {.round = 2});
  }
  REQUIRE(desk.coordinator->report().states[0] == FragmentState{2, digest_of(77)});
}

TEST_CASE("trust: who is never ready costs its grace twice, not for ever") {
  Members members(3);
  Desk& desk = members.desk;
  auto& links = members.links;
  int64_t waited = 0;
  for (uint64_t round = 1; round <= 8; ++round) {
    for (const size_t m : {0, 1}) desk.ready(links[m], 500, round, round * 10);
    while (desk.out.last(links[0], MessageType::kOpen) == nullptr ||
           desk.out.last(links[0], MessageType::kOpen)->authority.round != round) {
      desk.pass_alive(seconds(1), links);
      REQUIRE(++waited < 100);
    }
    for (const LinkId link : links) desk.done(link, 5);
  }
  REQUIRE(waited >= 58);
  REQUIRE(waited <= 62);
}

TEST_CASE("trust: one that moves and is never done costs one deadline, then nothing") {
  Members members(3);
  Desk& desk = members.desk;
  auto& links = members.links;
  int64_t waited = 0;
  for (uint64_t round = 1; round <= 4; ++round) {
    for (const LinkId link : links) desk.ready(link, 500, round, round * 10);
    for (const size_t m : {0, 1}) desk.done(links[m], 5);
    uint64_t progress = 0;
    while (desk.out.last(links[0], MessageType::kCommit) == nullptr ||
           desk.out.last(links[0], MessageType::kCommit)->authority.round != round) {
      for (const size_t m : {0, 1}) desk.heartbeat(links[m]);
      desk.heartbeat(links[2], ++progress, 0, 0b001);
      desk.pass(seconds(1));
      REQUIRE(++waited < 700);
    }
    desk.sync(links[2]);
  }
  REQUIRE(waited >= 299);
  REQUIRE(waited <= 320);
}

// A contributor whose chunks come one at a time, none of them late enough to be a stall.
TEST_CASE(
    "trust: a contributor that is too slow for the deadline is left out, and the rest goes on") {
  Members members(3);
  Desk& desk = members.desk;
  auto& links = members.links;
  for (const LinkId link : links) desk.ready(link, 500);
  int64_t waited = 0;
  while (!desk.is_told(links[0], MessageType::kReown)) {
    for (const size_t m : {0, 1}) {
      desk.send(links[m], MessageType::kHeartbeat,
                encode(Heartbeat{.progress = uint64_t(waited),
                                 .owes_contribution = 0b100,
                                 .owes_result = m == 0 ? 0b110u : 0b101u}));
    }
    desk.heartbeat(links[2], uint64_t(waited));
    desk.pass(seconds(1));
    REQUIRE(++waited < 400);
  }
  REQUIRE(desk.out.last<Reown>(links[0], MessageType::kReown)->excluded == std::vector<PeerId>{2});
  REQUIRE(!desk.is_told(links[0], MessageType::kAbort));
  for (const size_t m : {0, 1}) desk.done(links[m], 5);
  REQUIRE(desk.is_told(links[0], MessageType::kCommit));
}

// --- What is not believed.

TEST_CASE("trust: steps follow from what was committed") {
  Members members(2);
  Desk& desk = members.desk;
  desk.ready(members.links[0], 500, 1, 10);
  desk.ready(members.links[1], 500, 1, 1'000'000'000'000);
  REQUIRE(desk.out.closed.contains(members.links[1]));
  const auto open = desk.out.last<Open>(members.links[0], MessageType::kOpen);
  REQUIRE(open->step == 10);
  REQUIRE(
      desk.out.last<Notice>(members.links[1], MessageType::kNotice)->reason.find("1000000000000") !=
      std::string::npos);
}

TEST_CASE("trust: weights follow from steps and batches, and from what the others bring") {
  Members members(4);
  Desk& desk = members.desk;
  const std::vector<int64_t> weights = {900, 1000, 1100, int64_t{1} << 56};
  for (size_t m = 0; m < 4; ++m) desk.ready(members.links[m], weights[m], 1, 10);
  const auto open = desk.out.last<Open>(members.links[0], MessageType::kOpen);
  REQUIRE(open->contributors[2].weight_tokens == 1100);
  REQUIRE(open->contributors[3].weight_tokens == 16 * 1100);
  SECTION("of two there is no median, but steps and batches") {
    Members two(2);
    two.desk.ready(two.links[0], 1000, 1, 10);
    two.desk.ready(two.links[1], int64_t{1} << 56, 1, 10);
    const auto theirs = two.desk.out.last<Open>(two.links[0], MessageType::kOpen);
    REQUIRE(theirs->contributors[1].weight_tokens == 64 * 100 * 10);
  }
}

TEST_CASE("trust: a state that no node of the run can have is refused") {
  Desk desk(strict_options(2));
  desk.dials = Desk::Dials::kPending;
  Hello hello = desk.hello(1, 1'000'000'000);
  hello.step = 50;
  REQUIRE(desk.reject_reason(desk.join(hello)).find("1000000000") != std::string::npos);
  hello = desk.hello(1, 4);
  hello.step = 5000;  // Of 1000.
  REQUIRE(!desk.reject_reason(desk.join(hello)).empty());
  hello.step = 50;
  REQUIRE(desk.reject_reason(desk.join(hello)).empty());
}

TEST_CASE("trust: the run's position is what was committed, whatever nodes have trained") {
  Members members(2);
  Desk& desk = members.desk;
  members.round(1, members.links);
  for (const LinkId link : members.links) {
    desk.send(link, MessageType::kApplied, encode(Applied{digest_of(8)}), {.round = 1});
    desk.send(link, MessageType::kHeartbeat, encode(Heartbeat{.step = 19}));
  }
  const LinkId late = desk.join(desk.hello(3));
  desk.sync(late);
  REQUIRE(desk.out.last<Start>(late, MessageType::kStart)->step == 10);
}

TEST_CASE("trust: a coordinator that was started again goes on with most of the last members") {
  CoordinatorOptions options = strict_options(14);
  Desk desk(options);
  std::vector<LinkId> links;
  for (uint64_t key = 1; key <= 8; ++key) {
    Hello hello = desk.hello(key, 4, 9);
    hello.step = 40;
    hello.last_term = 3;
    hello.last_epoch = 20;
    hello.last_member_count = 14;
    links.push_back(desk.join(hello));
    if (key == 7) {  // Half of them is not most of them.
      desk.pass_alive(seconds(5), links);
      REQUIRE(!desk.is_told(links[0], MessageType::kCatchUp));
    }
  }
  desk.pass_alive(seconds(3), links);
  REQUIRE(desk.is_told(links[0], MessageType::kCatchUp));
}

TEST_CASE("trust: a member that knows a later coordinator tells that there are two") {
  Desk desk(strict_options(1));
  const LinkId first = desk.join(desk.hello(1), 5);
  REQUIRE(!desk.is_told(first, MessageType::kNotice));  // The one before is no rival.
  const LinkId second = desk.join(desk.hello(2), 7000);
  REQUIRE(desk.out.last<Notice>(second, MessageType::kNotice)->reason.find("two coordinators") !=
          std::string::npos);
  REQUIRE(desk.out.last(second, MessageType::kWelcome)->authority.term == 7001);
}

TEST_CASE("trust: whom it rejects for another configuration hears the run's") {
  CoordinatorOptions options = strict_options(2);
  options.shared_config = R"({"seed":1})";
  Desk desk(options);
  Hello hello = desk.hello(1);
  hello.config = digest_of(43);
  desk.dials = Desk::Dials::kPending;
  const LinkId link = desk.join(hello);
  REQUIRE(desk.out.last<Reject>(link, MessageType::kReject)->shared_config == R"({"seed":1})");
}

}  // namespace
}  // namespace net
