#include "net/coordinator/reachability.h"

#include "net/recording_outbox.h"
#include "support/catch.h"

namespace net {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr uint64_t kRun = 5;
constexpr uint64_t kKey = 99;

class Watching {
 public:
  Watching() { reachability.watch(0, kKey, {"10.0.0.1", 4000}, turn()); }
  Turn turn() { return {now, out}; }
  LinkId link() const { return out.dialled.rbegin()->first; }
  size_t dial_count() const { return out.dialled.size(); }
  void answer(uint64_t key, uint64_t run = kRun) {
    reachability.on_link_open(link(), {}, turn());
    const auto asked = out.last<DialBack>(link(), MessageType::kDialBack);
    REQUIRE(asked);
    reachability.on_message(link(),
                            {.type = MessageType::kDialBackReply,
                             .run = run,
                             .source = 0,
                             .authority = {},
                             .payload = encode(DialBackReply{dial_back_proof(key, asked->nonce)})},
                            turn());
  }
  void refuse() { reachability.on_link_closed(link(), "connection refused", turn()); }
  void pass(Duration time) {
    for (const Instant end = now + time; now < end;) {
      now += milliseconds(250);
      reachability.on_tick(turn());
    }
  }

  RecordingOutbox out;
  Instant now = seconds(100);
  Reachability reachability{kRun};
};

TEST_CASE("reachability: the port must be the node's own") {
  Watching watching;
  REQUIRE(!watching.reachability.finding(0));
  SECTION("it is") {
    watching.answer(kKey);
    REQUIRE(watching.reachability.finding(0)->is_reachable);
    watching.pass(seconds(600));
    REQUIRE(watching.dial_count() == 1);
  }
  SECTION("another node's, which has proved its key") {
    watching.reachability.on_link_open(watching.link(), NodeId{{1}}, watching.turn());
    REQUIRE(watching.out.closed.contains(watching.link()));
    REQUIRE(!watching.reachability.finding(0)->is_reachable);
    REQUIRE(watching.reachability.finding(0)->reason == "another node answers there");
  }
  SECTION("another node's") {
    watching.answer(kKey + 1);
    REQUIRE(!watching.reachability.finding(0)->is_reachable);
    REQUIRE(watching.reachability.finding(0)->reason.find("another") != std::string::npos);
  }
  SECTION("another run's") {
    watching.answer(kKey, kRun + 1);
    REQUIRE(!watching.reachability.finding(0)->is_reachable);
  }
  REQUIRE(watching.out.closed.contains(watching.link()));
}

TEST_CASE("reachability: nobody answers: tried again, less and less often") {
  Watching watching;
  watching.refuse();
  REQUIRE(watching.reachability.finding(0)->reason == "connection refused");
  size_t dials = 1;
  for (const int64_t pause : {5, 10, 20, 40, 60, 60}) {
    watching.pass(seconds(pause) - milliseconds(500));
    REQUIRE(watching.dial_count() == dials);
    watching.pass(seconds(1));
    REQUIRE(watching.dial_count() == ++dials);
    watching.refuse();
  }
  watching.pass(seconds(61));
  watching.answer(kKey);
  REQUIRE(watching.reachability.finding(0)->is_reachable);
}

TEST_CASE("reachability: a port that takes the connection and says nothing") {
  Watching watching;
  watching.reachability.on_link_open(watching.link(), {}, watching.turn());
  watching.pass(seconds(11));
  REQUIRE(!watching.reachability.finding(0)->is_reachable);
  REQUIRE(watching.out.closed.contains(watching.link()));
}

TEST_CASE("reachability: strangers do not make us dial a third party again and again") {
  Watching watching;
  watching.refuse();
  for (PeerId peer = 1; peer < 40; ++peer) {  // New nodes, each with the same address.
    watching.reachability.forget(peer - 1, watching.turn());
    watching.reachability.watch(peer, kKey + peer, {"10.0.0.1", 4000}, watching.turn());
    REQUIRE(watching.reachability.finding(peer)->reason == "connection refused");
  }
  REQUIRE(watching.dial_count() == 1);
}

TEST_CASE("reachability: a doubt is looked into, not more often than every few seconds") {
  Watching watching;
  watching.answer(kKey);
  for (int i = 0; i < 40; ++i) {
    watching.reachability.doubt(0, watching.now);
    watching.pass(milliseconds(250));
    if (watching.dial_count() == 2) break;
  }
  REQUIRE(watching.dial_count() == 2);
  REQUIRE(watching.now >= seconds(105));
  REQUIRE(watching.reachability.finding(0)->is_reachable);  // Until the answer.
  watching.refuse();
  REQUIRE(!watching.reachability.finding(0)->is_reachable);
}

TEST_CASE("reachability: an answer for who has gone is for nobody") {
  Watching watching;
  watching.reachability.forget(0, watching.turn());
  REQUIRE(watching.out.closed.contains(watching.link()));
  REQUIRE(!watching.reachability.owns(watching.link()));
  REQUIRE(!watching.reachability.finding(0));
}

}  // namespace
}  // namespace net
