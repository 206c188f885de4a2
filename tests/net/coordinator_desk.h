// The coordinator alone: the test plays all members, word by word, with a clock of its own. What a
// scenario with real members shows better is in cluster_test.cpp.
#pragma once

#include <algorithm>

#include "net/coordinator.h"
#include "net/quiet_log.h"
#include "net/recording_outbox.h"
#include "net/sample_digest.h"
#include "net/turn.h"
#include "support/catch.h"

namespace net {

using std::chrono::milliseconds;
using std::chrono::seconds;

inline CoordinatorOptions small_options() {
  CoordinatorOptions options;
  options.run_name = "run";
  options.config = digest_of(42);
  options.chunk_counts = {4};
  options.start_members = 2;
  options.heartbeat_interval = seconds(1);
  return options;
}

// A coordinator and the members that the test plays: a link each.
class Desk {
 public:
  explicit Desk(const CoordinatorOptions& options = small_options())
      : coordinator(Coordinator::create(options)), options_(options) {
    quiet_log();
  }

  Hello hello(uint64_t node_key, uint64_t version = 0, uint8_t digest = 1) const {
    Hello hello;
    hello.protocol = kProtocolVersion;
    hello.node_key = node_key;
    hello.node_name = fmt::format("node-{}", node_key);
    hello.config = options_.config;
    hello.listen = {"", 4000};
    hello.states.assign(size_t(options_.fragment_count), {version, digest_of(digest)});
    return hello;
  }
  LinkId connect(const NodeId& node = {}) {
    const Remote remote{.endpoint = {"10.1.1.1", 5555}, .node = node};
    coordinator->on_link_open(++last_link_, true, remote, now, out);
    return last_link_;
  }
  void send(LinkId link, MessageType type, Bytes payload, Authority authority = {}) {
    coordinator->on_message(link,
                            {.type = type,
                             .run = run_hash(options_.run_name),
                             .source = kNobody,
                             .authority = authority,
                             .payload = std::move(payload)},
                            now, out);
  }
  LinkId join(const Hello& hello, uint32_t term = 0) {
    const LinkId link = connect();
    send(link, MessageType::kHello, encode(hello), {.term = term});
    if (dials == Dials::kAnswered) answer_dials(hello.node_key);
    if (dials == Dials::kRefused) refuse_dials();
    return link;
  }
  // Plays the data port of a node: the coordinator dials back everybody who joins.
  enum class Dials { kAnswered, kRefused, kPending };
  Dials dials = Dials::kAnswered;
  void answer_dials(uint64_t node_key) {
    for (const LinkId link : pending_dials()) {
      coordinator->on_link_open(link, false, {}, now, out);
      const auto asked = out.last<DialBack>(link, MessageType::kDialBack);
      REQUIRE(asked);
      send(link, MessageType::kDialBackReply,
           encode(DialBackReply{dial_back_proof(node_key, asked->nonce)}));
    }
  }
  void refuse_dials() {
    for (const LinkId link : pending_dials()) {
      coordinator->on_link_closed(link, "connection refused", now, out);
    }
  }
  std::vector<LinkId> pending_dials() {
    std::vector<LinkId> links;
    for (const auto& [link, endpoint] : out.dialled) {
      if (answered_dials_.insert(link).second) links.push_back(link);
    }
    return links;
  }
  void sync(LinkId link) {
    const auto catch_up = out.last<CatchUp>(link, MessageType::kCatchUp);
    REQUIRE(catch_up);
    send(link, MessageType::kSynced, encode(Synced{catch_up->states}));
  }
  LinkId join_active(uint64_t node_key) {
    const LinkId link = join(hello(node_key));
    if (out.last(link, MessageType::kCatchUp)) sync(link);
    return link;
  }
  void ready(LinkId link, int64_t weight, uint64_t round = 1, uint64_t step = 10) {
    send(link, MessageType::kReady, encode(Ready{weight, step}), {.round = round});
  }
  void done(LinkId link, uint8_t digest) {
    const Message* const open = out.last(link, MessageType::kOpen);
    const Message* const reown = out.last(link, MessageType::kReown);
    Authority authority = open->authority;
    if (reown != nullptr && reown->authority.round == authority.round) authority = reown->authority;
    send(link, MessageType::kDone, encode(Done{digest_of(digest)}), authority);
  }
  // Whoever owes something is silent.
  void heartbeat(LinkId link, uint64_t progress = 0, uint64_t contributions = 0,
                 uint64_t results = 0) {
    send(link, MessageType::kHeartbeat,
         encode(Heartbeat{.step = 1,
                          .progress = progress,
                          .owes_contribution = contributions,
                          .owes_result = results,
                          .silent = contributions | results}));
  }
  void pass(Duration time) {
    now += time;
    coordinator->on_tick(now, out);
  }
  // Time in which all of them are heard.
  void pass_alive(Duration time, const std::vector<LinkId>& links) {
    for (Duration passed{}; passed < time; passed += seconds(1)) {
      for (const LinkId link : links) heartbeat(link);
      pass(seconds(1));
    }
  }
  std::string reject_reason(LinkId link) const {
    const auto reject = out.last<Reject>(link, MessageType::kReject);
    return reject ? reject->reason : "";
  }
  bool is_told(LinkId link, MessageType type) const { return out.last(link, type) != nullptr; }

  std::unique_ptr<Coordinator> coordinator;
  RecordingOutbox out;
  Instant now = seconds(100);

 private:
  CoordinatorOptions options_;
  LinkId last_link_ = 0;
  std::set<LinkId> answered_dials_;
};

}  // namespace net
