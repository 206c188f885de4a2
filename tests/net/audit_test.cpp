// Sums that are made again by others: a wrong owner is found and left out, and nobody can be framed
// who is right.
#include <algorithm>
#include <set>

#include "net/cluster_moments.h"
#include "net/exchange/hash_tree.h"
#include "net/member_stage.h"
#include "support/catch.h"

namespace net {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;

// All make so many sums of others again, after each round.
struct AuditedCluster : Cluster {
  AuditedCluster(uint64_t seed, int64_t nodes, int64_t audit_chunks)
      : Cluster(options_of(seed, nodes)), node_count(nodes) {
    for (HostId node = 1; node <= HostId(nodes); ++node) {
      MemberOptions options = member_options(node);
      options.audit_chunks = audit_chunks;
      options.audit_patience = std::chrono::milliseconds(500);
      change_member_options(node, options);
    }
    world.on_delivery = [this, before = world.on_delivery](HostId from, HostId to,
                                                           Message& message) {
      before(from, to, message);
      accusations += message.type == MessageType::kAudited;
      orders += message.type == MessageType::kAudit;
    };
    start_all();
  }
  static ClusterOptions options_of(uint64_t seed, int64_t nodes) {
    ClusterOptions options = quick_cluster(seed, nodes);
    options.trainer.result_padding_bytes = 8;
    return options;
  }
  // The nodes whose parts were in the last round that node 1 knows.
  std::set<HostId> contributors() {
    std::set<HostId> hosts;
    for (const PeerId peer : node(1).commits().back().members) {
      for (const HostId host : running_nodes()) {
        if (node(host).peer() == peer) hosts.insert(host);
      }
    }
    return hosts;
  }
  bool is_left_out(HostId host) {
    return run_until([&] { return !node(1).commits().empty() && !contributors().contains(host); },
                     minutes(1));
  }

  const int64_t node_count;
  int64_t accusations = 0, orders = 0;
};

TEST_CASE("hash tree: a leaf leads to the root, and nothing else does") {
  for (const int64_t count : {1, 2, 3, 5, 8, 9}) {
    std::vector<base::Digest> leaves;
    for (int64_t i = 0; i < count; ++i)
      leaves.push_back(base::sha256(std::as_bytes(std::span(&i, 1))));
    const HashTree tree(leaves);
    for (int64_t i = 0; i < count; ++i) {
      std::vector<base::Digest> path = tree.path(i);
      REQUIRE(int64_t(path.size()) == path_length(count));
      REQUIRE(root_of(leaves[size_t(i)], i, path) == tree.root());
      for (int64_t other = 0; other < count; ++other) {
        if (other == i) continue;
        REQUIRE(root_of(leaves[size_t(other)], i, path) != tree.root());
        REQUIRE(root_of(leaves[size_t(i)], other, path) != tree.root());
      }
      if (path.empty()) continue;
      path.back().bytes[0] ^= 1;
      REQUIRE(root_of(leaves[size_t(i)], i, path) != tree.root());
    }
  }
}

TEST_CASE("audit: sums are made again by others, and those that are right stay unsaid") {
  AuditedCluster cluster(31, 4, 2);
  REQUIRE(cluster.reaches(10, minutes(1)));
  for (const HostId node : cluster.running_nodes()) {
    REQUIRE(cluster.node(node).repeat_count() >= 10);
    REQUIRE(cluster.node(node).repeat_count() <= 2 * 11);
  }
  REQUIRE(cluster.accusations == 0);
  REQUIRE(cluster.contributors().size() == 4);
  REQUIRE(cluster.violations() == "");
}

TEST_CASE("audit: an owner that publishes wrong sums is left out, and tried again much later") {
  for (const int64_t nodes : {3, 4, 7}) {
    INFO(nodes << " nodes");
    AuditedCluster cluster(32, nodes, 2);
    REQUIRE(cluster.reaches(2, minutes(1)));
    cluster.node(2).lie_about_sums(true);
    REQUIRE(cluster.is_left_out(2));
    REQUIRE(cluster.contributors().size() == size_t(nodes) - 1);
    // Once is enough: the others ask no more while it owns nothing.
    const uint64_t version = cluster.highest_version();
    REQUIRE(cluster.reaches(version + 1, minutes(1)));  // What was asked already is on its way.
    const int64_t orders = cluster.orders;
    REQUIRE(cluster.reaches(version + 10, minutes(1)));
    REQUIRE(cluster.orders == orders);
    REQUIRE(!cluster.contributors().contains(2));
    cluster.node(2).lie_about_sums(false);
    REQUIRE(cluster.run_until([&] { return cluster.contributors().contains(2); }, minutes(2)));
    REQUIRE(cluster.violations() == "");
  }
}

TEST_CASE("audit: one verifier that lies leaves out nobody but itself") {
  for (const int64_t nodes : {3, 4, 7}) {
    INFO(nodes << " nodes");
    AuditedCluster cluster(33, nodes, 2);
    REQUIRE(cluster.reaches(2, minutes(1)));
    cluster.node(3).lie_about_repeats(true);
    REQUIRE(cluster.is_left_out(3));
    REQUIRE(cluster.contributors().size() == size_t(nodes) - 1);
    REQUIRE(cluster.reaches(cluster.highest_version() + 10, minutes(1)));
    for (HostId node = 1; node <= HostId(nodes); ++node)
      REQUIRE(cluster.contributors().contains(node) == (node != 3));
    REQUIRE(cluster.violations() == "");
  }
}

TEST_CASE("audit: of two nodes neither can prove anything") {
  AuditedCluster cluster(34, 2, 2);
  REQUIRE(cluster.reaches(2, minutes(1)));
  cluster.node(1).lie_about_repeats(true);
  cluster.node(2).lie_about_sums(true);
  REQUIRE(cluster.reaches(8, minutes(1)));
  REQUIRE(cluster.accusations > 0);
  REQUIRE(cluster.orders == 0);
  REQUIRE(cluster.contributors().size() == 2);
  REQUIRE(cluster.violations() == "");
}

// Else an owner could hide behind its own part.
TEST_CASE("audit: who does not show what it announced is left out, and nobody else") {
  for (const bool is_silent : {false, true}) {
    INFO((is_silent ? "it says that it has nothing" : "it shows other bytes"));
    AuditedCluster cluster(35, 4, 2);
    cluster.world.on_delivery = [&, before = cluster.world.on_delivery](HostId from, HostId to,
                                                                        Message& message) {
      before(from, to, message);
      if (from != 2 || !is_chunk_of(message, WantKind::kProof)) return;
      if (is_silent) {
        message.type = MessageType::kGone;
        message.payload = encode(Gone{WantKind::kProof});
        return;
      }
      auto payload = std::make_shared<std::vector<std::byte>>(*message.payload);
      payload->back() ^= std::byte{1};
      message.payload = std::move(payload);
    };
    REQUIRE(cluster.is_left_out(2));
    REQUIRE(cluster.contributors() == std::set<HostId>{1, 3, 4});
    REQUIRE(cluster.reaches(cluster.highest_version() + 10, minutes(1)));
    REQUIRE(cluster.contributors() == std::set<HostId>{1, 3, 4});
    REQUIRE(cluster.violations() == "");
  }
}

TEST_CASE("audit: who cannot get a part is not believed against the others") {
  AuditedCluster cluster(36, 4, 2);
  cluster.world.on_delivery = [&, before = cluster.world.on_delivery](HostId from, HostId to,
                                                                      Message& message) {
    before(from, to, message);
    if (to != 3 || from != 2 || !is_chunk_of(message, WantKind::kProof)) return;
    message.type = MessageType::kGone;
    message.payload = encode(Gone{WantKind::kProof});
  };
  REQUIRE(cluster.reaches(10, minutes(1)));
  REQUIRE(cluster.orders > 0);
  REQUIRE(cluster.contributors().size() == 4);
  REQUIRE(cluster.violations() == "");
}

TEST_CASE("audit: an owner takes no part that was not announced") {
  InRound stage;
  const Bytes right = contribution_of(0).payloads[1];
  for (const size_t place : {size_t(kContributionOffset), size_t(1)}) {
    auto other = std::make_shared<std::vector<std::byte>>(*right);
    (*other)[place] ^= std::byte{1};
    const LinkId link = stage.link_to(0);
    stage.give(0, name(WantKind::kContribution, 1), other);
    REQUIRE(stage.out.closed.contains(link));
    stage.pass(seconds(2));
    stage.member->on_link_open(stage.link_to(0), false, {}, stage.now, stage.out);
  }
}

}  // namespace
}  // namespace net
