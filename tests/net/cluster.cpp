#include "net/cluster.h"

#include <algorithm>

#include "net/coordinator/electorate.h"
#include "net/quiet_log.h"

namespace net {

using std::chrono::milliseconds;
using std::chrono::seconds;

ClusterOptions quick_cluster(uint64_t seed, int64_t node_count) {
  ClusterOptions options;
  options.network.seed = seed;
  options.node_count = node_count;
  options.coordinator.start_members = node_count;
  options.coordinator.start_grace = seconds(10);
  options.coordinator.ready_grace = seconds(5);
  options.coordinator.round_timeout = seconds(40);
  options.coordinator.stall_after = seconds(6);
  options.coordinator.dead_after = seconds(4);
  options.member.coordinator_patience = seconds(60);
  options.member.fetch_patience = seconds(45);
  return options;
}

Endpoint Cluster::address(HostId host) {
  return {fmt::format("10.0.0.{}", host + 1), 4000};
}

base::Digest Cluster::disk_digest(HostId node, int64_t fragment) const {
  const Node& n = nodes_.at(node);
  const bool is_on = n.trainer && world.is_on(node);
  return FakeTrainer::digest(options_.trainer, is_on ? n.trainer->checkpoint() : n.disk, fragment);
}

namespace {

// Made of its number: whether it could sign is no matter here.
NodeId node_id(HostId host) {
  NodeId id;
  id.bytes[0] = uint8_t(host);
  return id;
}

}  // namespace

Endpoint Cluster::home_address() const {
  return options_.has_alias ? Endpoint{"run.example", 4000} : address(options_.home);
}

Cluster::Cluster(const ClusterOptions& options) : world(options.network), options_(options) {
  options_.coordinator.run_name = "simulated";
  options_.coordinator.config.bytes[0] = 1;
  options_.coordinator.fragment_count = options.trainer.fragment_count;
  options_.coordinator.chunk_counts.assign(size_t(options.trainer.fragment_count),
                                           options.trainer.chunk_count);
  if (options.coordinator.plan != CoordinatorOptions::Plan::kDirect) {
    const int64_t bytes = options.trainer.chunk_count * (200 + options.trainer.padding_bytes);
    options_.coordinator.round_bytes.assign(size_t(options.trainer.fragment_count),
                                            {.contribution = bytes, .result = bytes});
  }
  for (HostId host = 0; host <= options.node_count; ++host) {
    world.add_host(host, address(host),
                   options.is_secured && host != kCoordinatorHost ? node_id(host) : NodeId{});
    if (host == 0) continue;
    nodes_[host].disk = nodes_[host].older_disk = FakeTrainer::fresh(options.trainer);
  }
  if (options.has_alias) world.add_alias(options.home, home_address());
  world.on_delivery = [](HostId, HostId, Message&) {};  // Whoever replaces it calls the one before.
  quiet_log();
}

void Cluster::start_all() {
  if (options_.home == kCoordinatorHost) start_coordinator();
  for (HostId node = 1; node <= options_.node_count; ++node) start_node(node);
}

void Cluster::start_coordinator(Term term) {
  // As time would do it. No two have the same.
  ++coordinator_count_;
  options_.coordinator.term =
      1 + 1000 * coordinator_count_ - (term == Term::kLower && coordinator_count_ > 1 ? 1500 : 0);
  CoordinatorOptions options = options_.coordinator;
  if (options.fail_over) {
    options.log = log_;
    options.keep_log = [this](const RunLog& log) { log_ = log; };
  }
  coordinator_ = Coordinator::create(options);
  world.turn_on(kCoordinatorHost, *coordinator_);
}

void Cluster::crash_coordinator() {
  world.turn_off(kCoordinatorHost);
}

MemberOptions Cluster::member_options(HostId node) const {
  MemberOptions options = options_.member;
  options.run_name = options_.coordinator.run_name;
  options.config = options_.coordinator.config;
  options.node_name = fmt::format("node-{}", node);
  options.node_key = options_.is_secured ? node_id(node).number() : 1000 + uint64_t(node);
  options.coordinator = home_address();
  if (options_.coordinator.fail_over) options.own = {address(node)};
  options.advertise = {"", address(node).port};
  return options;
}

void Cluster::start_node(HostId node, Memory memory) {
  Node& n = nodes_.at(node);
  if (memory == Memory::kLost) {
    n.disk = FakeTrainer::fresh(options_.trainer);
    n.log = {};
  }
  if (memory == Memory::kStale) n.disk = n.older_disk;
  TrainerOptions trainer = options_.trainer;
  if (const auto times = slowness_.find(node); times != slowness_.end()) {
    trainer.step_time *= times->second;
    trainer.apply_time *= times->second;
  }
  n.coordinator = nullptr;
  n.trainer = std::make_unique<FakeTrainer>(world, node, trainer, n.disk, oracle);
  if (const auto weight = weights_.find(node); weight != weights_.end()) {
    n.trainer->set_weight(weight->second);
  }
  const auto special = special_.find(node);
  MemberOptions options = special == special_.end() ? member_options(node) : special->second;
  if (!options_.coordinator.fail_over) return world.turn_on(node, n.trainer->make_member(options));
  options.log = n.log;
  options.keep_log = [&n](const RunLog& log) { n.log = log; };
  world.turn_on(node, n.trainer->make_member(options, [&](std::unique_ptr<Member> member) {
    return stand_by(node, options, std::move(member));
  }));
}

std::unique_ptr<Member> Cluster::stand_by(HostId node, const MemberOptions& options,
                                          std::unique_ptr<Member> member) {
  CoordinatorOptions standby = options_.coordinator;
  standby.term = 1;
  standby.identity = options.node_key;
  if (std::ranges::find(options.own, options.coordinator) == options.own.end())
    standby.home = options.coordinator;
  auto coordinator = Coordinator::create(standby);
  nodes_.at(node).coordinator = coordinator.get();
  return Peer::create({.run_name = options.run_name,
                       .node = options_.is_secured ? node_id(node) : NodeId{},
                       .identity = options.node_key,
                       .own = options.own},
                      std::move(member), std::move(coordinator));
}

std::vector<HostId> Cluster::coordinating() const {
  std::vector<HostId> all;
  for (const HostId node : running_nodes()) {
    const Coordinator* const coordinator = nodes_.at(node).coordinator;
    if (coordinator && !coordinator->report().members.empty()) all.push_back(node);
  }
  return all;
}

bool Cluster::decides_alone(HostId node) const {
  const auto& electorates = nodes_.at(node).log.list.electorates;
  const auto special = special_.find(node);
  const std::set<uint64_t> alone{special == special_.end() ? member_options(node).node_key
                                                           : special->second.node_key};
  return !electorates.empty() && std::ranges::all_of(electorates, [&](const Electorate& one) {
    return is_quorum(one, alone, true);
  });
}

void Cluster::crash_node(HostId node, bool is_silent) {
  world.turn_off(node, is_silent);
  Node& n = nodes_.at(node);
  n.older_disk = std::move(n.disk);
  n.disk = n.trainer->checkpoint();
}

void Cluster::restart_stopped() {
  for (const HostId node : running_nodes()) {
    const auto& stopped = this->node(node).stopped();
    if (!stopped || !stopped->restart_makes_sense) continue;
    crash_node(node);
    start_node(node);
  }
}

bool Cluster::run_until(const std::function<bool()>& is_true, Duration limit) {
  return world.run_until(is_true, limit);
}

bool Cluster::reaches(uint64_t version, Duration limit) {
  return run_until([&] { return lowest_version() >= version; }, limit);
}

bool Cluster::all_active(Duration limit) {
  const auto is_active = [&](HostId node) { return nodes_.at(node).trainer->is_active(); };
  return run_until([&] { return std::ranges::all_of(running_nodes(), is_active); }, limit);
}

uint64_t Cluster::lowest_version() const {
  uint64_t lowest = kNoVersion;
  for (const HostId node : running_nodes()) {
    for (const uint64_t version : nodes_.at(node).trainer->versions()) {
      lowest = std::min(lowest, version);
    }
  }
  return lowest;
}

uint64_t Cluster::highest_version() const {
  uint64_t highest = 0;
  for (const HostId node : running_nodes()) {
    for (const uint64_t version : nodes_.at(node).trainer->versions()) {
      highest = std::max(highest, version);
    }
  }
  return highest;
}

std::vector<HostId> Cluster::running_nodes() const {
  std::vector<HostId> running;
  for (const auto& [node, n] : nodes_) {
    if (n.trainer && world.is_on(node)) running.push_back(node);
  }
  return running;
}

std::string Cluster::violations() const {
  std::string all;
  for (const std::string& violation : oracle.violations()) all += violation + "\n";
  return all;
}

}  // namespace net
