#include "train/node.h"

#include <charconv>
#include <chrono>
#include <ctime>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <limits>
#include <random>

#include "base/log.h"
#include "base/thread.h"
#include "data/loader.h"
#include "data/tokenizer.h"
#include "observe/metrics.h"
#include "outer/outer_loop.h"
#include "train/master_parameters.h"
#include "train/node_checkpoint.h"
#include "train/run_metrics.h"
#include "train/trainer.h"

namespace train {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

net::Duration seconds(double value) {
  return net::Duration(int64_t(value * 1e9));
}

net::Endpoint endpoint_of(const std::string& text) {
  return *net::parse_endpoint(text);
}  // Checked with the config.

constexpr int64_t kEverySample = std::numeric_limits<int64_t>::max();

struct Data {
  std::vector<std::unique_ptr<data::TokenDataset>> datasets;
  std::unique_ptr<data::Sampler> sampler;
};

Data open_data(const RunConfig& config, base::Storage& storage) {
  if (config.data.sources.empty())
    throw base::bad_input("data.sources is empty",
                          "make a dataset with atoll prepare and name its prefix there");
  Data data;
  data::SamplerOptions options = {.seed = uint64_t(config.seed),
                                  .sequence_length = config.model.sequence_length,
                                  .validation_fraction = config.data.validation_fraction,
                                  .weights = {},
                                  .vocabulary = config.model.vocabulary};
  std::vector<const data::TokenDataset*> pointers;
  for (const DataSource& source : config.data.sources) {
    data.datasets.push_back(data::TokenDataset::open(storage, source.prefix));
    pointers.push_back(data.datasets.back().get());
    options.weights.push_back(source.weight);
  }
  data.sampler = std::make_unique<data::Sampler>(std::move(pointers), options);
  return data;
}

// The same number after every restart in the same run directory, so that the coordinator knows the
// node again.
uint64_t load_node_key(base::Storage& storage, const std::string& run_directory) {
  const std::string path = run_directory + "/node_key";
  if (storage.exists(path)) {
    const std::string text = storage.read_text(path);
    uint64_t key = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), key, 16);
    if (error == std::errc() && key != 0) return key;
    base::log_warning("{} does not hold a node key; a new one is made", path);
  }
  std::random_device random;
  const uint64_t key = (uint64_t{random()} << 32 | random()) | 1;
  storage.write_atomically(path, fmt::format("{:016x}\n", key));
  return key;
}

// Everything of one node, in the order in which it is built.
class Node {
 public:
  Node(const RunConfig& config, base::Storage& storage,
       const std::function<bool()>& stop_requested);
  NodeSummary run();

 private:
  void resume();
  bool join();
  void load_samples(const outer::OuterLoop::Entry& entry);
  void start_loader(const data::SampleRanges& samples);
  void ask_for_samples();
  int64_t samples() const;
  void one_step();
  void take(const outer::StepOutcome& outcome);
  void evaluate();
  void save();
  void masters_changed();
  void leave(const std::string& reason);

  const RunConfig& config_;
  base::Storage& storage_;
  const std::function<bool()>& stop_requested_;
  const base::Digest digest_;
  observe::MetricsFile metrics_file_;
  Data data_;
  RankTeam ranks_;
  Trainer trainer_;
  RunMetrics metrics_;

  base::ThreadPool pool_;
  MasterParameters masters_;
  std::unique_ptr<outer::OuterState> outer_;  // Null in a solo run, as the two below.
  std::unique_ptr<net::Swarm> swarm_;
  std::unique_ptr<outer::OuterLoop> outer_loop_;

  std::unique_ptr<data::Loader> loader_;
  bool is_asking_ = false;  // For samples.
  int64_t step_ = 0;        // Inner steps done.
  int64_t tokens_ = 0;
  int64_t saved_step_ = -1;
  int64_t evaluated_step_ = -1;
  bool has_local_progress_ = false;
  NodeSummary summary_;
  std::vector<int64_t> resumed_tokens_;
  int64_t resumed_samples_ = 0;
  data::SampleRanges resumed_samples_left_;
};

Node::Node(const RunConfig& config, base::Storage& storage,
           const std::function<bool()>& stop_requested)
    : config_(config),
      storage_(storage),
      stop_requested_(stop_requested),
      digest_(shared_digest(config)),
      metrics_file_(config.node.run_directory + "/metrics.jsonl", config.node.name),
      data_(open_data(config, storage)),
      ranks_(choose_backends(config.node), config),
      trainer_(config.training, ranks_),
      metrics_(metrics_file_, config, ranks_.peak_flops()),
      pool_(int(config.node.threads)),
      masters_(ranks_.parameters(), *ranks_.first().engine.backend.device) {
  base::log_info("{}: {} parameters on {}{}", config.node.name,
                 model::parameter_count(config.model), ranks_.first().engine.backend.device->name(),
                 ranks_.count() == 1 ? "" : fmt::format(", {} ranks", ranks_.count()));
  if (!config.swarm.coordinator.empty())
    outer_ = outer::OuterState::create(config.outer, ranks_.first().engine.layout, masters_, pool_);
  resume();
}

void Node::resume() {
  const auto reader =
      checkpoint::open_newest(storage_, config_.node.run_directory,
                              [](const std::string& text) { base::log_warning("{}", text); });
  if (!reader) return;
  const checkpoint::Manifest& manifest = reader->manifest();
  if (manifest.config != digest_) {
    throw base::bad_input(fmt::format("the checkpoint of step {} in {} was made with another "
                                      "config (name, seed, model, optimizer, outer, "
                                      "steps or validation part)",
                                      manifest.step, config_.node.run_directory),
                          "resume with the config that the run was started with, or choose another "
                          "node.run_directory");
  }
  if (manifest.data != data_.sampler->fingerprint())
    base::log_warning(
        "the data differs from what the checkpoint of step {} was trained on: its order is a new "
        "one",
        manifest.step);
  restore_node(*reader, {ranks_, masters_, outer_.get()});
  step_ = saved_step_ = manifest.step;
  tokens_ = manifest.tokens_trained;
  resumed_tokens_ = manifest.tokens_since_commit;
  resumed_samples_ = manifest.samples;
  for (const data::SampleRange& range : manifest.samples_left) resumed_samples_left_.add(range);
  has_local_progress_ = true;
  base::log_info("going on from step {}", step_);
}

// False if a stop was requested before the swarm took us.
bool Node::join() {
  const uint64_t node_key =
      outer_ ? load_node_key(storage_, config_.node.run_directory) : uint64_t{0};
  // Its own rounding errors: the same ones whenever this node computes a step.
  ranks_.run(
      [&](Rank& rank) { rank.optimizer.set_rounding_seed(uint64_t(config_.seed), node_key); });
  if (!outer_) {
    load_samples({});
    return true;
  }
  const SwarmConfig& swarm = config_.swarm;
  swarm_ = net::Swarm::join(
      {.listen = endpoint_of(config_.node.listen)},
      {.run_name = config_.name,
       .config = digest_,
       .node_name = config_.node.name,
       .node_key = node_key,
       .coordinator = endpoint_of(swarm.coordinator),
       .advertise =
           config_.node.advertise.empty() ? net::Endpoint{} : endpoint_of(config_.node.advertise),
       .samples = uint64_t(resumed_samples_),
       .coordinator_patience = seconds(swarm.coordinator_patience_seconds)},
      *outer_, outer_->states(), uint64_t(step_));
  outer_loop_ = outer::OuterLoop::create({.config = config_.outer,
                                          .steps_total = config_.training.steps,
                                          .join_timeout = seconds(swarm.join_timeout_seconds)},
                                         *outer_, *swarm_);
  if (!resumed_tokens_.empty()) outer_loop_->restore_tokens_since_commit(resumed_tokens_);
  const auto entry = outer_loop_->join(has_local_progress_, stop_requested_);
  if (!entry) return false;
  for (const auto& membership : entry->memberships) metrics_.membership(membership);
  step_ = std::max(step_, int64_t(entry->step));
  masters_changed();
  base::log_info("member {} of the swarm, at step {}{}", entry->peer, step_,
                 entry->state_replaced ? ", with the swarm's state" : "");
  load_samples(*entry);
  return true;
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
  if (join()) {
    ask_for_samples();
    evaluate();
    while (step_ < config_.training.steps && !stop_requested_()) {
      ask_for_samples();
      if (loader_->has_batch()) {
        one_step();
      } else {
        take(outer_loop_->wait_for_samples(stop_requested_));
      }
    }
    summary_.finished = step_ >= config_.training.steps;
    if (summary_.finished && evaluated_step_ != step_) evaluate();
    if (saved_step_ != step_) save();
    leave(summary_.finished ? "done" : "stopped");
  }
  summary_.step = step_;
  summary_.tokens = tokens_;
  if (swarm_) {
    summary_.bytes_sent = swarm_->bytes_sent();
    summary_.bytes_received = swarm_->bytes_received();
  }
  summary_.seconds = seconds_since(begin);
  metrics_.summary(summary_);
  return summary_;
}

void Node::one_step() {
  data::Batch batch = loader_->next();
  batch.step = step_;
  InnerStep step = trainer_.step(batch);
  step.samples = samples();
  step.passes = double(step.samples) / data_.sampler->samples_per_pass();
  metrics_.inner_step(step);
  step_ = step.step;
  tokens_ += step.tokens;
  if (outer_loop_) {
    take(outer_loop_->after_step(uint64_t(step_), step.tokens, step.loss, stop_requested_));
  }
  const auto due = [&](int64_t every) {
    return every > 0 && step_ % every == 0 && step_ < config_.training.steps;
  };
  if (due(config_.evaluation.every_steps)) evaluate();
  if (due(config_.checkpoint.every_steps)) save();
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
  for (const auto& membership : outcome.memberships) metrics_.membership(membership);
  for (const auto& round : outcome.rounds) {
    metrics_.round(round);
    ++summary_.rounds;
    if (round.fragment == 0) summary_.outer_digest = round.digest.hex();
  }
  if (!outcome.rounds.empty() || outcome.state_replaced) masters_changed();
  if (outcome.jump_to_step && int64_t(*outcome.jump_to_step) > step_) {
    step_ = int64_t(*outcome.jump_to_step);
    base::log_info("going on with the swarm at step {}", step_);
  }
  if (outcome.lost) {
    save();
    throw base::resource_lost(
        fmt::format("the swarm is lost: {}", *outcome.lost),
        "the state is saved; start the node again once the coordinator can be reached");
  }
}

void Node::evaluate() {
  const Validation validation = ranks_.validate(*data_.sampler, config_.evaluation.rows);
  if (validation.tokens == 0) return;
  if (evaluated_step_ < 0) summary_.validation_loss_before = validation.loss;
  summary_.validation_loss_after = validation.loss;
  evaluated_step_ = step_;
  metrics_.evaluation(step_, validation);
  base::log_info("step {}: validation loss {:.4f}", step_, validation.loss);
}

void Node::save() {
  const auto begin = Clock::now();
  std::vector<data::SampleRange> samples_left = loader_->left().list();
  if (!outer_) samples_left.pop_back();  // All that nobody was given yet: `samples` says it.
  checkpoint::Manifest manifest = {
      .step = step_,
      .optimizer_updates = ranks_.first().optimizer.update_count(),
      .tokens_trained = tokens_,
      .model_config = base::write_config(
          [&, model = config_.model](base::ConfigVisitor& v) mutable { model::describe(v, model); },
          -1),
      .tokenizer = config_.data.tokenizer,
      .config = digest_,
      .data = data_.sampler->fingerprint(),
      .samples = samples(),
      .samples_per_pass = data_.sampler->samples_per_pass(),
      .samples_left = std::move(samples_left),
      .outer = outer_ ? outer_->states() : std::vector<net::FragmentState>{},
      .tokens_since_commit =
          outer_loop_ ? outer_loop_->tokens_since_commit() : std::vector<int64_t>{},
      .gradient_squares = ranks_.first().optimizer.gradient_squares(),
      .wall_time = fmt::format("{:%FT%TZ}", fmt::gmtime(std::time(nullptr))),
  };
  const auto report = save_node(
      storage_, {.run_directory = config_.node.run_directory, .keep = config_.checkpoint.keep},
      manifest, {ranks_, masters_, outer_.get()});
  saved_step_ = step_;
  metrics_.checkpoint(step_, report, seconds_since(begin));
  base::log_info("step {}: saved {}", step_, report.directory);
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
      .field("rounds", summary.rounds)
      .field("bytes_sent", summary.bytes_sent)
      .field("bytes_received", summary.bytes_received)
      .field("outer_digest", summary.outer_digest)
      .field("seconds", summary.seconds)
      .field("finished", summary.finished);
}

NodeSummary run_node(const RunConfig& config, base::Storage& storage,
                     const std::function<bool()>& stop_requested) {
  storage.make_directories(config.node.run_directory);
  base::configure_log({.prefix = config.node.name, .file = config.node.run_directory + "/log.txt"});
  storage.write_atomically(config.node.run_directory + "/config.json", to_json(config) + "\n");
  Node node(config, storage, stop_requested);
  return node.run();
}

}  // namespace train
