// A member that cannot be dialled dials the others; and one that is dialled so asks on that link.
#include "net/member_stage.h"

namespace net {
namespace {

using std::chrono::seconds;

Visits visits_to(std::vector<PeerId> peers) {
  Visits visits;
  for (const PeerId peer : peers)
    visits.peers.push_back({.peer = peer, .data = Stage::address(peer), .node_key = 100 + peer});
  return visits;
}

// Peer 1, whom nobody can dial, in round 1.
struct Visitor : Stage {
  Visitor() {
    start();
    tell(MessageType::kVisits, encode(visits_to({0, 2})));
    Open open;
    for (PeerId peer = 0; peer < 3; ++peer) {
      open.contributors.push_back(
          {.peer = peer,
           .weight_tokens = 100,
           .data = peer == 1 ? Endpoint{} : address(peer),
           .node_key = 100 + peer,
           .contribution = peer == 1 ? TinyStore::ours().root : contribution_of(peer).root});
    }
    open.owners = {0, 0, 2, 0};
    member->ready(0, 100, 10, now, out);
    tell(MessageType::kOpen, encode(open), round());
  }
  void ask(LinkId link) {
    receive(link, MessageType::kWant, encode(Want{WantKind::kContribution}), round());
  }
};

TEST_CASE("outreach: whoever cannot be dialled says Offer, then answers") {
  Visitor stage;
  const LinkId link = stage.links_to(Stage::address(2)).front();
  REQUIRE(!stage.out.last(link, MessageType::kOffer));
  stage.member->on_link_open(link, false, {}, stage.now, stage.out);
  REQUIRE(stage.out.last<Offer>(link, MessageType::kOffer)->peer == 1);
  stage.ask(link);
  REQUIRE(stage.out.last(link, MessageType::kChunk));
}

TEST_CASE("outreach: as many links as it is invited to, and a lost one is dialled again") {
  Visitor stage;
  const LinkId link = stage.links_to(Stage::address(2)).front();
  const auto count = [&] { return stage.links_to(Stage::address(2)).size(); };
  stage.member->on_link_open(link, false, {}, stage.now, stage.out);
  const size_t before = count();
  stage.receive(link, MessageType::kInvite, encode(Invite{4}), {});
  REQUIRE(count() == before + 3);
  stage.pass(seconds(1));
  REQUIRE(count() == before + 3);
  for (const LinkId one : stage.links_to(Stage::address(2))) {
    const std::string reason = "broke";
    stage.member->on_link_closed(one, reason, stage.now, stage.out);
  }
  REQUIRE(count() == before + 3);  // Not at once.
  stage.pass(seconds(6));
  REQUIRE(count() == before + 4);
}

TEST_CASE("outreach: who is not to be dialled any more is left") {
  Visitor stage;
  const LinkId link = stage.links_to(Stage::address(2)).front();
  stage.member->on_link_open(link, false, {}, stage.now, stage.out);
  stage.tell(MessageType::kVisits, encode(visits_to({0})));
  REQUIRE(stage.out.closed.contains(link));
  const size_t before = stage.links_to(Stage::address(2)).size();
  stage.pass(seconds(6));
  REQUIRE(stage.links_to(Stage::address(2)).size() == before);
}

TEST_CASE("outreach: another node there gets no Offer") {
  Visitor stage;
  const LinkId link = stage.links_to(Stage::address(2)).front();
  NodeId stranger;
  stranger.bytes[0] = 77;
  stage.member->on_link_open(link, false, {.endpoint = {}, .node = stranger}, stage.now, stage.out);
  REQUIRE(!stage.out.last(link, MessageType::kOffer));
  REQUIRE(stage.out.closed.contains(link));
}

TEST_CASE("outreach: a link that is offered is asked on") {
  Stage stage;
  stage.start();
  Open open;
  for (PeerId peer = 0; peer < 3; ++peer) {
    open.contributors.push_back(
        {.peer = peer,
         .weight_tokens = 100,
         .data = peer == 2 ? Endpoint{} : Stage::address(peer),
         .contribution = peer == 1 ? TinyStore::ours().root : contribution_of(peer).root});
  }
  open.owners = {0, 1, 1, 0};
  stage.member->ready(0, 100, 10, stage.now, stage.out);
  stage.tell(MessageType::kOpen, encode(open), Stage::round());
  const LinkId link = 7001;
  stage.member->on_link_open(link, true, {.endpoint = {"10.9.9.9", 5}, .node = {}}, stage.now,
                             stage.out);
  stage.receive(link, MessageType::kOffer, encode(Offer{.peer = 2, .round_trip_us = 1000}), {});
  REQUIRE(stage.take_wants(link).size() == 2);
  // Nobody offers in our name, and garbage is no offer.
  for (const Bytes& payload : {encode(Offer{.peer = 1}), no_payload()}) {
    const LinkId wrong = payload->empty() ? 7002 : 7003;
    stage.member->on_link_open(wrong, true, {.endpoint = {"10.9.9.9", 5}, .node = {}}, stage.now,
                               stage.out);
    stage.receive(wrong, MessageType::kOffer, payload, {});
    REQUIRE(stage.out.closed.contains(wrong));
  }
}

}  // namespace
}  // namespace net
