#include "train/node.h"

#include <chrono>
#include <ctime>
#include <deque>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <limits>
#include <optional>

#include "base/log.h"
#include "base/thread.h"
#include "data/loader.h"
#include "data/tokenizer.h"
#include "observe/metrics.h"
#include "outer/outer_loop.h"
#include "train/coordinator_options.h"
#include "train/failure_record.h"
#include "train/hugging_face_copies.h"
#include "train/master_parameters.h"
#include "train/node_checkpoint.h"
#include "train/port_map.h"
#include "train/resume.h"
#include "train/run_data.h"
#include "train/run_directory.h"
#include "train/run_log_file.h"
#include "train/run_metrics.h"
#include "train/save_schedule.h"
#include "train/service_watch.h"
#include "train/shared_config.h"
#include "train/start_model.h"
#include "train/status_server.h"
#include "train/swarm_security.h"
#include "train/timing.h"
#include "train/trainer.h"

namespace train {
namespace {

using Clock = std::chrono::steady_clock;

net::RehearsalOptions rehearsal_of(const NodeConfig& node) {
  return {.bytes_per_second = node.rehearse.rate_mbit * 1e6 / 8,
          .delay = seconds(node.rehearse.delay_ms / 1e3),
          .cut_every = seconds(node.rehearse.cut_seconds)};
}

net::Endpoint endpoint_of(const std::string& text) {
  return *net::parse_endpoint(text);
}  // Checked with the config.

constexpr int64_t kEverySample = std::numeric_limits<int64_t>::max();

auto differences_to(const RunConfig& config) {
  return [here = shared_config(config)](const std::string& there) {
    return difference_lines(shared_config_differences(here, there));
  };
}

KnownTokenizer tokenizer_before(const ResumePoint& point, const StartModel* start) {
  if (!point.reader) return start ? start->tokenizer() : KnownTokenizer{};
  const checkpoint::Manifest& manifest = point.reader->manifest();
  return known_tokenizer(manifest, fmt::format("the checkpoint of step {}", manifest.step));
}

PortMap addresses_of(const NodeConfig& node) {
  const net::Endpoint listen = endpoint_of(node.listen);
  if (node.advertise != kAdvertiseAuto) {
    const auto advertise = node.advertise.empty() ? net::Endpoint{} : endpoint_of(node.advertise);
    return {.listen = listen, .advertise = advertise, .source = {}, .problem = {}};
  }
  const PortMap map = map_port(listen, process_environment());
  if (!map.problem.empty()) base::log_warning("{}", map.problem);
  if (!map.source.empty()) {
    base::log_info("others dial this node at {}, as {} says", map.advertise.text(), map.source);
  }
  return map;
}

std::unique_ptr<StatusServer> serve_status(const RunConfig& config) try {
  const std::string& listen = config.node.status_listen;
  if (listen.empty()) return nullptr;
  auto server = std::make_unique<StatusServer>(listen, config.name, config.node.name);
  base::log_info("how the run goes: {}/", server->url());
  return server;
} catch (const base::Error& error) {
  throw base::bad_input(fmt::format("node.status_listen: {}", error.what()), error.hint());
}

// Everything of one node, in the order in which it is built.
class Node {
 public:
  Node(const RunConfig& config, base::Storage& storage, const std::function<bool()>& stop_requested,
       ServiceWatch& service);
  NodeSummary run();

 private:
  void begin_with_start_model();
  void resume();
  bool join();
  bool join_or_be_done();
  void claim_directory();
  void load_samples(const outer::OuterLoop::Entry& entry);
  void start_loader(const data::SampleRanges& samples);
  void ask_for_samples();
  int64_t samples() const;
  void train();
  void one_step();
  void take(const outer::StepOutcome& outcome);
  enum class Digests { kIfThere, kAll };
  void write_rounds(Digests digests);
  void evaluate();
  void save_when_due();
  void save();
  void save_hugging_face();
  void save_at_end();
  void save_after_error();
  void masters_changed();
  void leave(const std::string& reason);

  const RunConfig& config_;
  base::Storage& storage_;
  const std::function<bool()>& stop_requested_;
  ServiceWatch& service_;
  const base::Digest digest_;
  RunDirectory directory_;
  ResumePoint resume_point_;                 // Early: what it refuses must not wait for a GPU.
  std::unique_ptr<StatusServer> status_;     // Null: not wanted. The metrics feed it.
  std::unique_ptr<StartModel> start_model_;  // Null: a run that goes on, or begins at random.
  RunData data_;
  RankTeam ranks_;
  Trainer trainer_;
  SaveSchedule save_schedule_;
  std::optional<observe::MetricsFile> metrics_file_;  // Once the directory is claimed.
  std::optional<RunMetrics> metrics_;

  base::ThreadPool pool_;
  MasterParameters masters_;
  std::unique_ptr<outer::OuterState> outer_;  // Null in a solo run, as the two below.
  RunLogFile run_log_;                        // These two outlive the swarm that fills them.
  IncidentBox incidents_;
  std::unique_ptr<net::Swarm> swarm_;
  std::unique_ptr<outer::OuterLoop> outer_loop_;

  std::unique_ptr<data::Loader> loader_;
  bool is_asking_ = false;  // For samples.
  int64_t step_ = 0;        // Inner steps done.
  int64_t tokens_ = 0;
  int64_t saved_step_ = -1;
  int64_t evaluated_step_ = -1;
  bool has_local_progress_ = false;
  bool is_whole_ = false;  // There was a step here, and what the node holds is that of step_.
  std::deque<outer::RoundReport> rounds_;  // Not yet in the metrics: their digests are being made.
  NodeSummary summary_;
  double training_seconds_ = 0;  // From the first step to the last.
  double exposed_seconds_ = 0;   // Of these, those that rounds took.
  std::vector<int64_t> resumed_tokens_;
  std::vector<outer::OuterLoop::InFlight> resumed_in_flight_;
  std::vector<checkpoint::ConfigChange> changes_;  // Of the whole run so far.
  int64_t resumed_committed_step_ = 0;
  int64_t resumed_samples_ = 0;
  data::SampleRanges resumed_samples_left_;
};

Node::Node(const RunConfig& config, base::Storage& storage,
           const std::function<bool()>& stop_requested, ServiceWatch& service)
    : config_(config),
      storage_(storage),
      stop_requested_(stop_requested),
      service_(service),
      digest_(shared_digest(config)),
      directory_(config, storage),
      resume_point_(find_resume_point(storage, config)),
      status_(serve_status(config)),
      start_model_(resume_point_.reader ? nullptr : StartModel::open(storage, config)),
      data_(open_data(config, storage, tokenizer_before(resume_point_, start_model_.get()))),
      ranks_(choose_backends(config.node), config),
      trainer_(config.training, ranks_),
      save_schedule_(config.checkpoint.every_steps),
      pool_(int(config.node.threads)),
      masters_(ranks_),
      run_log_(storage, directory_.path("swarm.json"), config.name) {
  base::log_info("{}: {} parameters on {}{}", config.node.name,
                 model::parameter_count(config.model), ranks_.first().engine.backend.device->name(),
                 ranks_.count() == 1 ? "" : fmt::format(", {} ranks", ranks_.count()));
  begin_with_start_model();
  if (!config.swarm.coordinator.empty())
    outer_ = outer::OuterState::create(config.outer, ranks_.first().engine.layout, masters_, pool_,
                                       config.node.results_kept);
  resume();
}

// Before the outer state is made, which begins with the same.
void Node::begin_with_start_model() {
  const auto start = std::move(start_model_);  // Its files are mapped only in here.
  if (!start) return;
  start_from(start->tensors(), {ranks_, masters_, nullptr});
  base::log_info("the run begins with the model in {}", config_.checkpoint.start_from);
}

void Node::resume() {
  const auto reader = std::move(resume_point_.reader);  // Its files are mapped only in here.
  if (!reader) return;
  const checkpoint::Manifest& manifest = reader->manifest();
  changes_ = manifest.changes;
  changes_.insert(changes_.end(), resume_point_.changes.begin(), resume_point_.changes.end());
  if (manifest.data != data_.sampler->fingerprint())
    base::log_warning(
        "the data differs from what the checkpoint of step {} was trained on: its order is a new "
        "one",
        manifest.step);
  restore_node(*reader, {ranks_, masters_, outer_.get()});
  step_ = saved_step_ = manifest.step;
  tokens_ = manifest.tokens_trained;
  resumed_tokens_ = manifest.tokens_since_commit;
  for (const auto& one : manifest.in_flight) {
    resumed_in_flight_.push_back({.fragment = one.fragment,
                                  .step = uint64_t(one.step),
                                  .tokens = one.tokens,
                                  .merge_from = one.merge_from});
  }
  resumed_committed_step_ = manifest.committed_step;
  resumed_samples_ = manifest.samples;
  for (const data::SampleRange& range : manifest.samples_left) resumed_samples_left_.add(range);
  has_local_progress_ = true;
  base::log_info("going on from step {}", step_);
}

// The start was not refused: from here on the disk may be changed.
void Node::claim_directory() {
  directory_.claim(resume_point_.abandoned);
  run_log_.open();
  const std::string metrics_path = directory_.path("metrics.jsonl");
  if (status_) status_->begin_with(metrics_path);
  metrics_file_.emplace(metrics_path, config_.node.name);
  if (status_) metrics_file_->set_listener([this](std::string_view line) { status_->put(line); });
  const bool is_peak_measured = ranks_.first().engine.backend.device->peak_flops() <= 0;
  metrics_.emplace(*metrics_file_, config_, ranks_.peak_flops(), is_peak_measured);
  metrics_->start(step_, ranks_.first().engine.backend.device->name(), ranks_.count());
  for (const checkpoint::ConfigChange& change : resume_point_.changes) {
    metrics_->change(change);
    base::log_info("{} is {} from step {} on; it was {}", change.key, change.after, change.step,
                   change.before);
  }
}

// False if a stop was requested before the swarm took us.
bool Node::join() {
  // Its own rounding errors: the same ones whenever this node computes a step.
  const uint64_t node_key = outer_ ? directory_.node_key().id().number() : uint64_t{0};
  ranks_.run(
      [&](Rank& rank) { rank.optimizer.set_rounding_seed(uint64_t(config_.seed), node_key); });
  if (!outer_) {
    claim_directory();
    load_samples({});
    return true;
  }
  const SwarmConfig& swarm = config_.swarm;
  const PortMap addresses = addresses_of(config_.node);
  const auto allowed = std::make_shared<net::AllowedKeys>();
  const auto key_of_coordinator = coordinator_key(config_);
  if (key_of_coordinator) allowed->set({*key_of_coordinator});
  std::optional<net::CoordinatorOptions> standby;
  const auto on_incident = [this](net::Incident one) { incidents_.put(std::move(one)); };
  if (swarm.fail_over) standby = coordinator_options(config_);
  if (standby) standby->allowed = key_of_coordinator ? allowed : nullptr;
  if (standby) standby->on_incident = on_incident;
  if (storage_.exists(directory_.path("node_key"))) run_log_.open();  // It is a node already.
  swarm_ = net::Swarm::join(
      {.listen = addresses.listen,
       .security = load_security(config_, storage_, directory_.node_key(), allowed),
       .rehearsal = rehearsal_of(config_.node),
       .uplink_bytes_per_second = config_.node.uplink_mbit * 1e6 / 8,
       .on_incident = on_incident},
      {.run_name = config_.name,
       .config = digest_,
       .node_name = config_.node.name,
       .node_key = node_key,
       .coordinator = endpoint_of(swarm.coordinator),
       .coordinator_key = key_of_coordinator,
       .allowed = key_of_coordinator ? allowed : nullptr,
       .advertise = addresses.advertise,
       .on_incident = on_incident,
       .log = run_log_.found(),
       .keep_log = [this](const net::RunLog& log) { run_log_.keep(log); },
       .samples = uint64_t(resumed_samples_),
       .coordinator_patience = seconds(swarm.coordinator_patience_seconds),
       .gap_share = config_.node.gap_share,
       .audit_chunks = swarm.audit_chunks},
      *outer_, outer_->states(), uint64_t(resumed_committed_step_), std::move(standby));
  outer_loop_ = outer::OuterLoop::create({.config = config_.outer,
                                          .steps_total = config_.training.steps,
                                          .position = uint64_t(step_),
                                          .config_differences = differences_to(config_),
                                          .join_timeout = seconds(swarm.join_timeout_seconds)},
                                         *outer_, *swarm_);
  if (!resumed_tokens_.empty()) outer_loop_->restore_tokens_since_commit(resumed_tokens_);
  outer_loop_->restore_in_flight(resumed_in_flight_);
  const auto entry = outer_loop_->join(has_local_progress_, stop_requested_);
  if (!entry) return false;
  claim_directory();
  for (const auto& membership : entry->memberships) metrics_->membership(membership);
  for (const auto& standing : entry->standings) metrics_->standing(standing);
  step_ = int64_t(entry->step);
  masters_changed();
  base::log_info("member {} of the swarm, at step {}{}", entry->peer, step_,
                 entry->state_replaced ? ", with the swarm's state" : "");
  load_samples(*entry);
  return true;
}

// A node that had finished, and is started again, need not find anybody any more.
bool Node::join_or_be_done() {
  summary_.finished = step_ >= config_.training.steps;
  try {
    return join();
  } catch (const base::Error& error) {
    if (!summary_.finished || error.code() != base::ExitCode::kResourceLost) throw;
    base::log_warning("{}. All steps were done before: nothing is left to do", error.what());
    return false;
  }
}

// What the checkpoint had left, unless the run has gone on since: then it may have been trained on.
// A solo run has all the rest of the data.
void Node::load_samples(const outer::OuterLoop::Entry& entry) {
  data::SampleRanges left = resumed_samples_left_;
  left.drop_below(entry.state_replaced ? kEverySample : int64_t(entry.samples_void_below));
  if (const int64_t lost = resumed_samples_left_.count() - left.count(); lost > 0)
    base::log_info("{} samples that the checkpoint had left are left out", lost);
  if (!outer_) left.add({resumed_samples_, data_.sampler->sample_limit() - resumed_samples_});
  start_loader(left);
  base::log_info("{} samples of the data are handed out, {:.2f} passes", samples(),
                 double(samples()) / data_.sampler->samples_per_pass());
}

void Node::start_loader(const data::SampleRanges& samples) {
  loader_ = std::make_unique<data::Loader>(
      *data_.sampler, data::LoaderOptions{.rows = config_.training.batch_rows});
  for (const data::SampleRange& range : samples.list()) loader_->add(range);
}

// While half of what is asked for at a time is still there, and at least a batch: so a node waits
// only for a coordinator that is lost.
void Node::ask_for_samples() {
  if (!outer_loop_ || is_asking_) return;
  const int64_t count = std::min(config_.outer.inner_steps * config_.training.batch_rows,
                                 int64_t{net::kSamplesAskedMax});
  if (loader_->left().count() > std::max(count / 2, config_.training.batch_rows)) return;
  is_asking_ = true;
  outer_loop_->need_samples(uint64_t(count));
}

// Of the run, that are handed out. A solo run hands out what it trains on, one after the other.
int64_t Node::samples() const {
  return outer_loop_ ? int64_t(outer_loop_->samples()) : loader_->left().list().back().first;
}

NodeSummary Node::run() {
  const auto begin = Clock::now();
  service_.ready(outer_ ? "joining the swarm" : "training");
  if (join_or_be_done()) {
    ask_for_samples();
    evaluate();
    try {
      const auto begin_training = Clock::now();
      train();
      training_seconds_ = seconds_since(begin_training);
      summary_.finished = step_ >= config_.training.steps;
      if (summary_.finished && evaluated_step_ != step_) evaluate();
    } catch (...) {
      save_after_error();
      throw;
    }
    save_at_end();
    if (summary_.finished && config_.checkpoint.also_hugging_face > 0) save_hugging_face();
    write_rounds(Digests::kAll);
    leave(summary_.finished ? "done" : "stopped");
  }
  summary_.step = step_;
  summary_.tokens = tokens_;
  if (swarm_) {
    summary_.bytes_sent = swarm_->bytes_sent();
    summary_.bytes_received = swarm_->bytes_received();
  }
  summary_.seconds = seconds_since(begin);
  if (training_seconds_ > 0) summary_.utilisation = 1 - exposed_seconds_ / training_seconds_;
  if (metrics_) metrics_->incidents(incidents_.take());
  if (metrics_) metrics_->summary(summary_);
  base::log_info("{} at step {}", summary_.finished ? "all steps are done" : "stopped by a signal",
                 step_);
  return summary_;
}

void Node::train() {
  try {
    while (step_ < config_.training.steps && !stop_requested_()) {
      ask_for_samples();
      if (loader_->has_batch()) {
        one_step();
      } else {
        const bool was_whole = std::exchange(is_whole_, false);  // The state may be replaced.
        take(outer_loop_->wait_for_samples(stop_requested_));
        is_whole_ = was_whole;
      }
    }
  } catch (const Diverged&) {
    note_failure(storage_, config_.node.run_directory, step_ + 1, saved_step_);
    throw;
  }
}

void Node::one_step() {
  data::Batch batch = loader_->next();
  batch.step = step_;
  is_whole_ = false;
  InnerStep step = trainer_.step(batch);
  step.samples = samples();
  step.passes = double(step.samples) / data_.sampler->samples_per_pass();
  metrics_->inner_step(step);
  step_ = step.step;
  tokens_ += step.tokens;
  if (step.skipped) ++summary_.skipped_steps;
  service_.status(fmt::format("step {} of {}, loss {:.3f}, {} rounds", step_,
                              config_.training.steps, step.loss, summary_.rounds));
  if (outer_loop_) {
    take(outer_loop_->after_step(uint64_t(step_), step.tokens, step.loss, stop_requested_));
  }
  is_whole_ = true;
  if (step_ >= config_.training.steps) return;
  const int64_t every = config_.evaluation.every_steps;
  if (every > 0 && step_ % every == 0) evaluate();
  save_when_due();
  if (const int64_t steps = config_.checkpoint.also_hugging_face; steps > 0 && step_ % steps == 0)
    save_hugging_face();
}

// What the outer loop came to.
void Node::take(const outer::StepOutcome& outcome) {
  if (data::SampleRanges left = loader_->left(); outcome.samples_void_below > 0) {
    left.drop_below(int64_t(outcome.samples_void_below));
    if (left.count() < loader_->left().count()) start_loader(left);
  }
  for (const auto& granted : outcome.samples) {
    if (granted.count > 0) loader_->add({int64_t(granted.first), int64_t(granted.count)});
    is_asking_ = false;
  }
  for (const auto& membership : outcome.memberships) metrics_->membership(membership);
  for (const auto& standing : outcome.standings) metrics_->standing(standing);
  metrics_->incidents(incidents_.take());
  for (const auto& round : outcome.rounds) {
    rounds_.push_back(round);
    ++summary_.rounds;
    exposed_seconds_ += round.exposed_seconds;
  }
  write_rounds(Digests::kIfThere);
  if (outcome.has_merged || outcome.state_replaced) masters_changed();
  if (outcome.jump_to_step && int64_t(*outcome.jump_to_step) != step_) {
    step_ = int64_t(*outcome.jump_to_step);
    base::log_info("going on with the swarm at step {}", step_);
  }
  if (outcome.lost) {
    save_at_end();
    throw base::resource_lost(
        fmt::format("the swarm is lost: {}", *outcome.lost),
        "the state is saved; start the node again once the coordinator can be reached");
  }
}

void Node::write_rounds(Digests digests) {
  for (; !rounds_.empty(); rounds_.pop_front()) {
    const outer::RoundReport& round = rounds_.front();
    const bool is_there =
        round.digest.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
    if (!is_there && digests == Digests::kIfThere) return;
    metrics_->round(round);
    if (round.fragment == 0) summary_.outer_digest = round.digest.get().hex();
  }
}

void Node::evaluate() {
  const auto validation = ranks_.validate(*data_.sampler, config_.evaluation.rows, stop_requested_);
  if (!validation || validation->tokens == 0) return;
  if (evaluated_step_ < 0) summary_.validation_loss_before = validation->loss;
  summary_.validation_loss_after = validation->loss;
  evaluated_step_ = step_;
  metrics_->evaluation(step_, *validation);
  base::log_info("step {}: validation loss {:.4f}", step_, validation->loss);
}

// A disk that is full now may have room later: training goes on from memory meanwhile.
void Node::save_when_due() {
  if (!save_schedule_.is_due(step_, trainer_.skipped_in_a_row() > 0)) return;
  try {
    save();
  } catch (const base::Error& error) {
    if (error.code() != base::ExitCode::kResourceLost) throw;
    const int64_t next = save_schedule_.failed(step_);
    base::log_warning(
        "step {}: no checkpoint: {}. The next attempt is after step {}; until then a "
        "crash costs all steps since step {}",
        step_, error.what(), next, std::max<int64_t>(saved_step_, 0));
    metrics_->checkpoint_failed(step_, error.what(), next);
  }
}

// For others: no failure of it ends the run.
void Node::save_hugging_face() {
  if (trainer_.skipped_in_a_row() > 0) return;
  const NodeTensors node{ranks_, masters_, outer_.get()};
  try {
    write_hugging_face_copy(storage_, config_, step_, data_.tokenizer, trained_tensors(node));
  } catch (const base::Error& error) {
    base::log_warning("step {}: no folder for transformers: {}", step_, error.what());
  }
}

// The state in a streak of skipped steps is where training fails: whoever is stopped there goes on
// from the checkpoint before. A run that is done has nothing to fail at any more.
void Node::save_at_end() {
  if (saved_step_ == step_) return;
  const int64_t skipped = trainer_.skipped_in_a_row();
  if (skipped > 0 && step_ < config_.training.steps) {
    base::log_warning("step {}: not saved, for the last {} steps were not finite", step_, skipped);
    return;
  }
  save();
}

void Node::save() {
  const auto begin = Clock::now();
  write_rounds(Digests::kAll);  // Whoever goes on from here does not hear of them again.
  std::vector<checkpoint::InFlight> in_flight;
  if (outer_loop_) {
    for (const auto& one : outer_loop_->in_flight()) {
      in_flight.push_back({.fragment = one.fragment,
                           .step = int64_t(one.step),
                           .tokens = one.tokens,
                           .merge_from = one.merge_from,
                           .is_short = one.merge_from && outer_->unmerged(one.fragment).is_short});
    }
  }
  std::vector<data::SampleRange> samples_left = loader_->left().list();
  if (!outer_) samples_left.pop_back();  // All that nobody was given yet: `samples` says it.
  checkpoint::Manifest manifest = {
      .step = step_,
      .optimizer_updates = ranks_.first().optimizer.update_count(),
      .tokens_trained = tokens_,
      .model_config = base::write_config(
          [&, model = config_.model](base::ConfigVisitor& v) mutable { model::describe(v, model); },
          -1),
      .data_config = data_to_json(config_),
      .tokenizer = data_.tokenizer,
      .config = digest_,
      .shared_config = shared_config(config_),
      .changes = changes_,
      .data = data_.sampler->fingerprint(),
      .samples = samples(),
      .samples_per_pass = data_.sampler->samples_per_pass(),
      .samples_left = std::move(samples_left),
      .outer = outer_ ? outer_->states() : std::vector<net::FragmentState>{},
      .committed_step = outer_loop_ ? int64_t(outer_loop_->committed_step()) : 0,
      .tokens_since_commit =
          outer_loop_ ? outer_loop_->tokens_since_commit() : std::vector<int64_t>{},
      .in_flight = std::move(in_flight),
      .gradient_squares = ranks_.first().optimizer.gradient_squares(),
      .wall_time = fmt::format("{:%FT%TZ}", fmt::gmtime(std::time(nullptr))),
  };
  const auto report = save_node(
      storage_, {.run_directory = config_.node.run_directory, .keep = config_.checkpoint.keep},
      manifest, {ranks_, masters_, outer_.get()});
  saved_step_ = step_;
  metrics_->checkpoint(step_, report, seconds_since(begin));
  base::log_info("step {}: saved {}", step_, report.directory);
}

// An error that comes between two steps, of the data say, costs none of them.
void Node::save_after_error() {
  try {
    write_rounds(Digests::kAll);
    if (is_whole_) save_at_end();
  } catch (const std::exception& error) {
    base::log_warning("step {}: cannot be saved: {}", step_, error.what());
  }
}

void Node::masters_changed() {
  ranks_.run([](Rank& rank) { rank.engine.parameters.masters_changed(); });
}

void Node::leave(const std::string& reason) {
  if (outer_loop_) outer_loop_->leave(reason);
}

}  // namespace

void write_fields(base::JsonWriter& out, const NodeSummary& summary) {
  out.field("step", summary.step)
      .field("tokens", summary.tokens)
      .field("validation_loss_before", summary.validation_loss_before)
      .field("validation_loss_after", summary.validation_loss_after)
      .field("skipped_steps", summary.skipped_steps)
      .field("rounds", summary.rounds)
      .field("bytes_sent", summary.bytes_sent)
      .field("bytes_received", summary.bytes_received)
      .field("outer_digest", summary.outer_digest)
      .field("seconds", summary.seconds)
      .field("utilisation", summary.utilisation)
      .field("finished", summary.finished);
}

NodeSummary run_node(const RunConfig& config, base::Storage& storage,
                     const std::function<bool()>& stop_requested) {
  ServiceWatch service(base::ServiceManager::of_environment());
  WatchedStorage watched(storage, service);
  const std::function<bool()> is_stopped = [&] {
    service.alive();
    const bool is_wanted = stop_requested();
    if (is_wanted) service.stopping();
    return is_wanted;
  };
  Node node(config, watched, is_stopped, service);
  try {
    return node.run();
  } catch (const std::exception& error) {
    base::log_error("the node ends: {}", error.what());  // The log outlives the terminal.
    throw;
  }
}

}  // namespace train
