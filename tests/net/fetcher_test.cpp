// Several links to one peer: how wants are spread over them, and what the end of one costs.
#include "net/exchange/fetcher.h"

#include <algorithm>
#include <deque>

#include "net/quiet_log.h"
#include "net/recording_outbox.h"
#include "net/security_rig.h"
#include "support/catch.h"

namespace net {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr uint64_t kRun = 7;
constexpr int64_t kBlock = 256 * 1024;

// Fetches blocks from donors that the test plays: each link carries 20 MB/s, a round trip takes
// 200 ms.
class Pull {
 public:
  explicit Pull(std::vector<Donor> providers, FetchLimits limits = {})
      : fetcher(kRun, limits), providers_(std::move(providers)) {
    quiet_log();
    fetcher.set_self(1);
    want(500);
  }
  static Donor donor(PeerId peer) { return {peer, {fmt::format("10.0.0.{}", peer), 4000}}; }

  void want(uint32_t count) {
    for (uint32_t i = 0; i < count; ++i) {
      fetcher.want({.kind = WantKind::kState, .chunk = next_++}, providers_);
      if (takes_turns) std::ranges::rotate(providers_, providers_.begin() + 1);
    }
    pump();
  }
  void pump() {
    fetcher.pump({now, out});
    for (auto& [link, messages] : out.sent) {
      for (const Message& message : messages) {
        if (message.type == MessageType::kWant)
          asked[link].push_back(chunk_name(WantKind::kState, message.authority));
      }
      messages.clear();
    }
  }
  void open(LinkId link, const NodeId& node = {}) {
    fetcher.on_link_open(link, node, {now, out});
    opened_.insert(link);
    pump();
  }
  void open_all() {
    for (const LinkId link : links()) {
      if (!opened_.contains(link)) open(link);
    }
  }
  void end(LinkId link) {
    fetcher.on_link_closed(link, "broke", {now, out});
    asked.erase(link);
    pump();
  }
  void answer(LinkId link) {
    const ChunkName name = asked.at(link).front();
    asked.at(link).pop_front();
    const auto delivery = fetcher.on_message(link, block(name), {now, out});
    if (delivery) fetcher.taken(*delivery);
    want(1);
  }
  static Message block(const ChunkName& name) {
    static const Bytes kPayload = state_payload(1, std::vector<std::byte>(size_t(kBlock)));
    return {.type = MessageType::kChunk,
            .run = kRun,
            .source = 0,
            .authority = authority_of(name, 0),
            .payload = kPayload};
  }
  // Links that stand or are being dialled.
  std::vector<LinkId> links() const {
    std::vector<LinkId> links;
    for (const auto& [link, endpoint] : out.dialled) {
      if (fetcher.owns(link)) links.push_back(link);
    }
    return links;
  }
  std::vector<LinkId> standing() const {
    std::vector<LinkId> standing = links();
    std::erase_if(standing, [&](LinkId link) { return !opened_.contains(link); });
    return standing;
  }
  std::set<ChunkName> asked_on(const std::vector<LinkId>& links) const {
    std::set<ChunkName> names;
    for (const LinkId link : links) {
      if (asked.contains(link)) names.insert(asked.at(link).begin(), asked.at(link).end());
    }
    return names;
  }
  // Answers, a chunk of each link after the other, until so many stand.
  void grow(size_t link_count) {
    now += milliseconds(200);
    for (int i = 0; i < 20'000 && standing().size() < link_count; ++i) {
      if (links().size() > standing().size()) {
        now += milliseconds(200);
        open_all();
      }
      serve(1);
    }
    REQUIRE(standing().size() == link_count);
  }
  void serve(int64_t rounds) {
    for (; rounds > 0; --rounds) {
      for (const LinkId link : standing()) {
        now += Duration(int64_t(1e9 * double(kBlock) / 20e6 / double(standing().size())));
        if (!asked[link].empty()) answer(link);
      }
    }
  }

  Fetcher fetcher;
  RecordingOutbox out;
  Instant now = seconds(10);
  std::map<LinkId, std::deque<ChunkName>> asked;
  bool takes_turns = false;  // Another provider first for each want.

 private:
  std::vector<Donor> providers_;
  uint32_t next_ = 0;
  std::set<LinkId> opened_;
};

TEST_CASE("fetcher: only the node that was named is asked, where links prove who answers") {
  Donor donor = Pull::donor(0);
  donor.node_key = node_key(1).id().number();
  Pull pull({donor});
  const LinkId first = pull.links().front();
  pull.open(first, node_key(2).id());
  REQUIRE(pull.out.closed.contains(first));
  REQUIRE(!pull.fetcher.owns(first));  // What it answers to what was asked meanwhile is nobody's.
  pull.now += seconds(1);
  pull.pump();
  const LinkId second = pull.links().front();
  REQUIRE(second != first);
  pull.open(second, node_key(1).id());
  REQUIRE(!pull.asked[second].empty());
}

TEST_CASE("fetcher: it begins with one link, and gets more where they bring more") {
  Pull pull({Pull::donor(0)}, {.links_per_peer_max = 8});
  REQUIRE(pull.links().size() == 1);
  pull.grow(8);
  pull.serve(100);
  // No link has much more to do than another.
  size_t least = SIZE_MAX, most = 0;
  for (const LinkId link : pull.links()) {
    least = std::min(least, pull.asked[link].size());
    most = std::max(most, pull.asked[link].size());
  }
  REQUIRE(least >= 1);
  REQUIRE(most <= least + 2);
}

TEST_CASE("fetcher: it never has more links than it may") {
  Pull pull({Pull::donor(0)}, {.links_per_peer_max = 3});
  pull.grow(3);
  for (int i = 0; i < 2000; ++i) {
    pull.serve(1);
    REQUIRE(pull.links().size() <= 3);
  }
}

TEST_CASE(
    "fetcher: a link that dies costs only its own wants, which go to the others of its peer") {
  Pull pull({Pull::donor(0), Pull::donor(2)});
  for (const LinkId link : pull.links()) {  // Peer 2 cannot be reached and is not asked.
    if (pull.out.dialled.at(link) == Pull::donor(2).data) pull.end(link);
  }
  pull.grow(4);
  const auto links = pull.standing();
  const LinkId victim = links[1];
  const auto lost = pull.asked_on({victim});
  REQUIRE(!lost.empty());
  std::vector<LinkId> others = links;
  std::erase(others, victim);
  const auto kept = pull.asked_on(others);
  for (const LinkId link : others) pull.asked[link].clear();
  pull.end(victim);
  for (int i = 0; i < 2000; ++i) {  // As what is in flight comes in, the lost ones are asked for.
    if (i < int(kept.size())) {
      const ChunkName name = *std::next(kept.begin(), i);
      for (const LinkId link : others) {
        if (const auto got = pull.fetcher.on_message(link, Pull::block(name), {pull.now, pull.out}))
          pull.fetcher.taken(*got);
      }
    }
    pull.pump();
  }
  const auto asked_again = pull.asked_on(others);
  REQUIRE(std::ranges::includes(asked_again, lost));
  // Nothing of what the others had in flight was asked for twice.
  for (const ChunkName& name : kept) REQUIRE(!asked_again.contains(name));
}

TEST_CASE("fetcher: when the last link to a peer dies its wants go to another provider") {
  Pull pull({Pull::donor(0), Pull::donor(2)});
  pull.grow(2);
  std::set<ChunkName> wanted;
  for (const LinkId link : pull.links()) {
    if (pull.out.dialled.at(link) != Pull::donor(0).data) continue;
    wanted.merge(pull.asked_on({link}));
    pull.end(link);
  }
  std::vector<LinkId> rest;
  for (const LinkId link : pull.links()) {
    if (pull.out.dialled.at(link) == Pull::donor(2).data) rest.push_back(link);
  }
  for (int i = 0; i < 3000; ++i) {
    for (const LinkId link : rest) {
      if (!pull.asked[link].empty()) {
        wanted.erase(pull.asked[link].front());
        pull.answer(link);
      }
    }
  }
  REQUIRE(!rest.empty());
  REQUIRE(wanted.empty());
}

TEST_CASE("fetcher: one more link that is refused does not make a peer unreachable") {
  Pull pull({Pull::donor(0)});
  pull.grow(2);
  for (int i = 0; i < 20'000 && pull.links().size() == 2; ++i) pull.serve(1);
  const auto links = pull.links();
  REQUIRE(links.size() == 4);
  pull.fetcher.want({.kind = WantKind::kResult}, {Pull::donor(0)});
  for (const LinkId link : {links[2], links[3]}) pull.end(link);
  REQUIRE(pull.links().size() == 2);
  const auto debts = pull.fetcher.take_debts();
  REQUIRE(debts.result == 1);
  REQUIRE(debts.unreachable == 0);
  pull.now += seconds(1);
  pull.pump();
  REQUIRE(pull.links().size() == 2);  // It is not dialled again at once.
  REQUIRE(pull.asked_on(pull.links()).size() > 2);
}

TEST_CASE("fetcher: a link that stood and broke is dialled again beside the others") {
  Pull pull({Pull::donor(0)});
  pull.grow(4);
  pull.end(pull.standing()[2]);
  REQUIRE(pull.links().size() == 3);
  pull.now += milliseconds(300);
  pull.pump();
  REQUIRE(pull.links().size() == 4);
}

TEST_CASE("fetcher: what is wrong on one link costs its peer all of them") {
  Pull pull({Pull::donor(0)});
  pull.grow(4);
  const auto links = pull.standing();
  const bool is_bad_chunk = GENERATE(true, false);
  const Turn turn{pull.now, pull.out};
  if (is_bad_chunk) {
    const auto delivery =
        pull.fetcher.on_message(links[1], Pull::block(pull.asked[links[1]].front()), turn);
    pull.fetcher.bad(*delivery, "it is wrong", turn);
  } else {
    pull.fetcher.on_message(
        links[1],
        {.type = MessageType::kWant, .run = kRun, .payload = encode(Want{WantKind::kState})}, turn);
  }
  for (const LinkId link : links) REQUIRE(pull.out.closed.contains(link));
  REQUIRE(pull.links().empty());
}

TEST_CASE("fetcher: a link that is silent while the others of its peer are not is given up") {
  Pull pull({Pull::donor(0)}, {.links_per_peer_max = 2});
  pull.grow(2);
  pull.serve(1000);  // The second one has shown its worth.
  const auto links = pull.standing();
  const auto serve = [&](const std::vector<LinkId>& talking) {
    for (const LinkId link : talking) {
      pull.now += milliseconds(200);
      if (!pull.asked[link].empty()) pull.answer(link);
    }
  };
  for (int i = 0; i < 100; ++i) serve(links);
  REQUIRE(!pull.asked[links[1]].empty());
  const Instant last_word = pull.now;
  while (pull.now - last_word < seconds(119)) serve({links[0]});
  REQUIRE(pull.fetcher.owns(links[1]));
  while (pull.now - last_word < seconds(121)) serve({links[0]});
  REQUIRE(!pull.fetcher.owns(links[1]));
  REQUIRE(pull.out.closed.contains(links[1]));
  REQUIRE(pull.fetcher.owns(links[0]));
}

TEST_CASE("fetcher: a peer that is silent on all links loses them all") {
  Pull pull({Pull::donor(0)});
  pull.grow(4);
  const auto links = pull.standing();
  pull.now += seconds(61);
  pull.pump();
  for (const LinkId link : links) REQUIRE(pull.out.closed.contains(link));
}

TEST_CASE("fetcher: what is asked for grows with rate and round trip, up to a bound") {
  const int64_t window = GENERATE(int64_t{8} << 20, int64_t{128} << 20);
  Pull pull({Pull::donor(0)}, {.window_bytes_max = window});
  REQUIRE(pull.asked_on(pull.links()).size() == 16);
  pull.grow(8);
  const auto in_flight = int64_t(pull.asked_on(pull.links()).size()) * kBlock;
  const int64_t begun = 2 * 8 * kBlock;
  REQUIRE(in_flight <= window + begun);
  if (window >= 128 << 20) REQUIRE(in_flight >= 20'000'000 * 4 / 5);  // 4 links brought 80 MB/s.
}

TEST_CASE("fetcher: to many peers it has few links each") {
  std::vector<Donor> donors;
  for (PeerId peer = 0; peer < 40; ++peer) donors.push_back(Pull::donor(peer));
  Pull pull(donors);
  pull.takes_turns = true;
  pull.want(4000);
  size_t link_count = 0;
  pull.now += milliseconds(200);
  for (int i = 0; i < 300; ++i) {
    pull.open_all();
    for (const LinkId link : pull.standing()) {
      pull.now += milliseconds(1);
      if (!pull.asked[link].empty()) pull.answer(link);
    }
    link_count = std::max(link_count, pull.links().size());
  }
  REQUIRE(link_count > 40);
  REQUIRE(link_count <= 64);
}

}  // namespace
}  // namespace net
