#include "train/doctor.h"

#include <fmt/format.h>

#include "base/log.h"
#include "outer/fragments.h"
#include "train/doctor/host_checks.h"
#include "train/doctor/host_facts.h"
#include "train/doctor/net_checks.h"
#include "train/memory_plan.h"
#include "train/run_estimate.h"
#include "train/swarm_security.h"

namespace train {
namespace {

using enum CheckLevel;
using Ask = net::VisitOptions::Ask;

// What the run wants of the host's memory, where it computes on `gpus`, or on the CPU (0).
int64_t host_bytes_needed(const RunConfig& config, const backend::CudaFacts& cuda,
                          const HostMemory& memory) {
  const bool is_gpu = config.node.device != "cpu" && !cuda.devices.empty();
  if (is_gpu) {
    const Machine machine{.gpus = int64_t(cuda.devices.size()),
                          .bytes_per_gpu = cuda.devices.front().total_bytes};
    return plan_of_node(config, machine).host_bytes;
  }
  const int64_t ranks = std::max<int64_t>(1, config.node.ranks);
  const MemoryPlan plan = plan_of_node(config, {.gpus = ranks,
                                                .bytes_per_gpu = memory.usable_bytes() / ranks,
                                                .compute_dtype = backend::DType::kFloat32});
  return plan.host_bytes + ranks * plan.bytes_per_gpu();
}

void add_disk(const std::optional<RunConfig>& config, Checks& checks) {
  const DiskEstimate needed = config ? estimate_disk(*config) : DiskEstimate{};
  const auto space = disk_space(config ? config->node.run_directory : ".");
  if (!space) {
    checks.push_back({"disk space", kWarn, "cannot be asked", ""});
    return;
  }
  checks.push_back(check_disk_space(space->folder, space->free_bytes, needed.needed_bytes));
  checks.push_back(
      check_disk_speed(space->folder, measure_disk_speed(space->folder), needed.checkpoint_bytes));
}

void add_host(const std::optional<RunConfig>& config, Checks& checks) {
  const HostFacts facts = gather_host_facts();
  const backend::CudaFacts cuda = backend::inspect_cuda();
  const std::string device = config ? config->node.device : "auto";
  checks.push_back(check_processors(facts, config ? config->node.threads : 0));
  checks.push_back(
      check_memory(facts.memory, config ? host_bytes_needed(*config, cuda, facts.memory) : 0));
  add_disk(config, checks);
  for (Check& check : check_gpus(cuda, facts.has_nvidia_driver, device))
    checks.push_back(std::move(check));
  checks.push_back(check_shared_memory(facts, int64_t(cuda.devices.size())));
  checks.push_back(check_descriptors(facts));
  checks.push_back(check_socket_buffers(facts));
  checks.push_back(check_congestion_control(facts));
  checks.push_back(check_clock(facts));
}

// Whom the coordinator knows, where it goes by keys; anybody else where a secret lets in.
net::NodeKey key_for_visits(const RunConfig& config, base::Storage& storage) {
  if (config.swarm.security != "keys") return net::NodeKey::make();
  const std::string own = config.node.run_directory + "/node_key";
  return load_node_key(storage, config.node.key_file.empty() ? own : config.node.key_file);
}

// Everything about the run that is asked over the network. Each question is a visit of its own.
class NetExamination {
 public:
  NetExamination(const RunConfig& config, base::Storage& storage, const DoctorOptions& options,
                 Checks& checks)
      : config_(config), options_(options), checks_(checks) {
    const net::NodeKey key = key_for_visits(config, storage);
    auto allowed = std::make_shared<net::AllowedKeys>();
    if (const auto coordinator = coordinator_key(config)) {
      allowed->set({*coordinator, key.id()});
    }
    node_key_ = key.id().number();
    security_ = load_security(config, storage, key, allowed);
  }

  void run() {
    ask_coordinator();
    look_at_port();
    judge_time_outs();
  }

 private:
  net::VisitOptions visit_to(const net::Endpoint& to, Ask ask) const {
    net::VisitOptions visit{.host = {.security = security_},
                            .run_name = config_.name,
                            .node_key = node_key_,
                            .to = to,
                            .ask = ask};
    return visit;
  }

  void ask_coordinator() {
    coordinator_ = *net::parse_endpoint(config_.swarm.coordinator);
    net::VisitFinding finding = net::visit(visit_to(coordinator_, Ask::kConfig));
    checks_.push_back(check_coordinator(coordinator_, finding));
    if (finding.elsewhere) {
      coordinator_ = *finding.elsewhere;
      finding = net::visit(visit_to(coordinator_, Ask::kConfig));
      checks_.push_back(check_coordinator(coordinator_, finding));
    }
    round_trip_seconds_ = finding.answer_seconds;
    is_coordinator_there_ = finding.answer_seconds > 0;
    if (is_coordinator_there_) checks_.push_back(check_shared_config(config_, finding));
  }

  // Whether we can listen shows when a visit tries to.
  void look_at_port() {
    PortMap map{.listen = *net::parse_endpoint(config_.node.listen)};
    if (config_.node.advertise == kAdvertiseAuto) {
      map = map_port(map.listen, process_environment());
    } else if (!config_.node.advertise.empty()) {
      map.advertise = *net::parse_endpoint(config_.node.advertise);
    }
    if (!map.problem.empty())
      checks_.push_back({"port map", kWarn, map.problem, "or set node.advertise"});
    try {
      look_from_outside(map);
    } catch (const base::Error& error) {
      checks_.push_back(check_listening(map.listen, error.what()));
    }
  }

  void look_from_outside(const PortMap& map) {
    const bool is_known = !map.advertise.host.empty();
    const bool is_asked = options_.dial_back && is_coordinator_there_;
    if (is_known && !is_asked) {
      net::VisitOptions visit = visit_to(map.advertise, Ask::kIsNode);
      visit.host.listen = map.listen;
      const net::VisitFinding finding = net::visit(visit);
      checks_.push_back(check_listening(map.listen, ""));
      checks_.push_back(check_own_port(map, finding));
      return;
    }
    net::VisitOptions visit = visit_to(coordinator_, is_asked ? Ask::kDialBack : Ask::kConfig);
    visit.host.listen = map.listen;
    visit.advertise = map.advertise;
    visit.config = shared_digest(config_);
    visit.fragment_count = config_.outer.fragments;
    // Without a coordinator only the listening counts.
    if (!is_coordinator_there_) visit.patience = std::chrono::milliseconds(1);
    const net::VisitFinding finding = net::visit(visit);
    Check listening = check_listening(map.listen, "");
    if (!is_asked) {
      listening.value +=
          "; others dial the address that the coordinator sees, and only "
          "--dial-back tells whether that leads here";
    }
    checks_.push_back(std::move(listening));
    if (is_asked) checks_.push_back(check_dial_back(finding));
  }

  void judge_time_outs() {
    double round_seconds = 0;
    if (options_.rate_mbit > 0) {
      const int64_t nodes =
          options_.nodes > 0 ? options_.nodes : std::max<int64_t>(2, config_.swarm.start_members);
      round_seconds = estimate_run(config_, {.nodes = nodes, .rate_mbit = options_.rate_mbit})
                          .longest_round_seconds;
    }
    checks_.push_back(check_time_outs_over(config_.swarm, round_trip_seconds_, round_seconds));
  }

  const RunConfig& config_;
  const DoctorOptions& options_;
  Checks& checks_;
  std::shared_ptr<const net::Security> security_;
  uint64_t node_key_ = 0;
  net::Endpoint coordinator_;
  double round_trip_seconds_ = 0;
  bool is_coordinator_there_ = false;
};

}  // namespace

Checks examine(const std::optional<RunConfig>& config, base::Storage& storage,
               const DoctorOptions& options) {
  Checks checks;
  add_host(config, checks);
  if (!config || config->swarm.coordinator.empty()) return checks;
  try {
    NetExamination(*config, storage, options, checks).run();
  } catch (const base::Error& error) {  // No secret, no key.
    checks.push_back({"security", kFail, error.what(), error.hint()});
  }
  return checks;
}

}  // namespace train
