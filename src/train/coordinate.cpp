#include "train/coordinate.h"

#include <condition_variable>
#include <ctime>
#include <mutex>
#include <utility>

#include "base/log.h"
#include "net/host.h"
#include "outer/fragments.h"
#include "outer/simulation.h"
#include "train/coordinator_options.h"
#include "train/incident_box.h"
#include "train/run_log_file.h"
#include "train/run_metrics.h"
#include "train/service_watch.h"
#include "train/swarm_security.h"
#include "train/timing.h"

namespace train {
namespace {

// Any will do where the run's secret lets it in: nobody asks for the coordinator's.
net::NodeKey load_key(const RunConfig& config, base::Storage& storage) {
  if (!config.node.key_file.empty()) return load_node_key(storage, config.node.key_file);
  if (config.swarm.security != "keys") return net::NodeKey::make();
  throw base::bad_input("node.key_file is missing: nodes know the coordinator by its key",
                        "make one with `atoll keys new-node FILE`");
}

std::unique_ptr<KeyListFile> load_key_list(const RunConfig& config, base::Storage& storage) {
  if (config.swarm.security != "keys") return nullptr;
  if (!config.node.allowed_keys_file.empty())
    return std::make_unique<KeyListFile>(storage, config.node.allowed_keys_file,
                                         std::time(nullptr));
  throw base::bad_input("node.allowed_keys_file is missing: nobody would be let in",
                        "it has a line `KEY NAME` for each node, see `atoll keys`");
}

// What the coordinator's thread last told, handed to the waiting main thread.
class ReportBox {
 public:
  void put(net::CoordinatorReport report) {
    std::lock_guard lock(mutex_);
    report_ = std::move(report);
    is_fresh_ = true;
    changed_.notify_all();
  }
  // Whether the coordinator's thread has told something since this was asked last.
  bool is_fresh() {
    std::lock_guard lock(mutex_);
    return std::exchange(is_fresh_, false);
  }
  net::CoordinatorReport wait(std::chrono::milliseconds patience) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, patience, [&] { return report_.finished; });
    return report_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  net::CoordinatorReport report_;
  bool is_fresh_ = false;
};

// Made when there is something to write: a coordinator needs no disk otherwise.
class IncidentFile {
 public:
  IncidentFile(base::Storage& storage, std::string directory)
      : storage_(storage), directory_(std::move(directory)) {}

  void write(const IncidentBox::Content& incidents) {
    if (incidents.entries.empty() || is_given_up_) return;
    try {
      if (!file_) storage_.make_directories(directory_);
      if (!file_) file_.emplace(directory_ + "/coordinator.jsonl", "coordinator");
    } catch (const base::Error& error) {
      is_given_up_ = true;
      return base::log_warning("no coordinator.jsonl: {}", error.what());
    }
    write_incidents(*file_, incidents);
  }

 private:
  base::Storage& storage_;
  const std::string directory_;
  std::optional<observe::MetricsFile> file_;
  bool is_given_up_ = false;
};

net::CoordinatorOptions::Guard guard_of(const outer::OuterConfig& outer) {
  using Guard = net::CoordinatorOptions::Guard;
  if (outer.mean == "trimmed") return Guard::kElements;
  return outer.mean == "mean" || outer.contribution_norm_max <= 0 ? Guard::kNone : Guard::kLengths;
}

}  // namespace

net::CoordinatorOptions::Plan plan_of(const std::string& name) {
  using Plan = net::CoordinatorOptions::Plan;
  if (name == "direct") return Plan::kDirect;
  if (name == "two-level") return Plan::kTwoLevel;
  return name == "ring" ? Plan::kRing : Plan::kAuto;
}

net::CoordinatorOptions coordinator_options(const RunConfig& config) {
  const SwarmConfig& swarm = config.swarm;
  const shard::Layout layout = model::make_layout(config.model);
  const auto fragments = outer::make_fragments(layout, config.outer.fragments);
  const outer::SimulationOptions sizes = outer::simulation_of(config.outer, layout);
  std::vector<int64_t> chunk_counts;
  std::vector<net::CoordinatorOptions::RoundBytes> round_bytes;
  for (const auto& fragment : fragments) {
    const size_t index = chunk_counts.size();
    chunk_counts.push_back(outer::chunk_count(fragment.element_count));
    round_bytes.push_back(
        {.contribution = sizes.contribution_bytes[index], .result = sizes.result_bytes[index]});
  }
  return {.run_name = config.name,
          .config = shared_digest(config),
          .fragment_count = int64_t(fragments.size()),
          .chunk_counts = std::move(chunk_counts),
          .shared_config = shared_config(config),
          .steps_total = uint64_t(config.training.steps),
          .inner_steps = uint64_t(config.outer.inner_steps),
          .tokens_per_step = config.training.batch_rows * config.model.sequence_length,
          .adopt_newer = swarm.adopt_newer,
          // A coordinator that is started again outranks the one before.
          .term = uint32_t(std::time(nullptr)),
          .fail_over = swarm.fail_over,
          .tie_breaker = swarm.tie_breaker,
          .plan = plan_of(swarm.plan),
          .round_bytes = std::move(round_bytes),
          .guard = guard_of(config.outer),
          .start_members = swarm.start_members,
          .members_min = swarm.members_min,
          .start_grace = seconds(swarm.start_grace_seconds),
          .ready_grace = seconds(swarm.ready_grace_seconds),
          .round_timeout = seconds(swarm.round_timeout_seconds),
          .stall_after = seconds(swarm.stall_seconds),
          .heartbeat_interval = seconds(swarm.heartbeat_seconds),
          .dead_after = seconds(swarm.dead_seconds)};
}

net::CoordinatorReport run_coordinator(
    const RunConfig& config, base::Storage& storage, const net::Endpoint& listen,
    const std::function<void(const net::Endpoint&)>& on_listening,
    const std::function<bool()>& stop_requested) {
  const auto key_list = load_key_list(config, storage);
  net::CoordinatorOptions options = coordinator_options(config);
  if (key_list) options.allowed = key_list->allowed();
  IncidentBox incidents;
  options.on_incident = [&](net::Incident one) { incidents.put(std::move(one)); };
  const std::string log_path = config.node.run_directory + "/coordinator.json";
  RunLogFile log(storage, log_path, config.name);
  if (options.fail_over) {
    options.log = log.found();
    options.keep_log = [&log](const net::RunLog& newest) { log.keep(newest); };
  }
  const auto coordinator = net::Coordinator::create(options);
  ReportBox box;
  const auto host = net::Host::create(
      {.listen = listen,
       .thread_name = "atoll-coord",
       .security = load_security(config, storage, load_key(config, storage), options.allowed),
       .on_incident = options.on_incident},
      *coordinator);
  if (options.fail_over) {
    storage.make_directories(config.node.run_directory);
    log.open();
  }
  IncidentFile metrics(storage, config.node.run_directory);
  host->start();
  on_listening(host->listening_on());
  ServiceWatch service(base::ServiceManager::of_environment());
  service.ready(fmt::format("listening on {}", host->listening_on().text()));
  while (!stop_requested()) {
    if (key_list) key_list->refresh(std::time(nullptr));
    metrics.write(incidents.take());
    host->post([&](net::Instant, net::Outbox&) { box.put(coordinator->report()); });
    const auto report = box.wait(std::chrono::milliseconds(250));
    if (box.is_fresh()) service.alive();
    service.status(fmt::format("{} members, {} rounds committed", report.members.size(),
                               report.rounds_committed));
    if (!report.finished) continue;
    if (storage.exists(log_path)) storage.remove_all(log_path);  // Another run begins anew.
    return report;
  }
  metrics.write(incidents.take());
  service.stopping();
  return box.wait(std::chrono::milliseconds(0));
}

}  // namespace train
