// The JSON config of a run: one struct of structs. The file is the same on every node but for the
// "node" section (and whatever --set changes).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "model/config.h"
#include "optim/optimizer.h"
#include "outer/config.h"

namespace train {

struct DataSource {
  std::string prefix;
  double weight = 1;
};

// What lies beside the data, by `atoll prepare`.
inline constexpr const char* kTokenizerAuto = "auto";

struct DataConfig {
  std::string tokenizer = "auto";  // kTokenizerAuto, "bytes" or a path.
  std::vector<DataSource> sources;
  double validation_fraction = 0.01;
};

struct TrainingConfig {
  int64_t steps = 1000;
  int64_t batch_rows = 8;            // Rows of T tokens per node and step.
  int64_t micro_batch_rows = 8;      // Rows computed at once; divides batch_rows.
  std::string recompute = "auto";    // auto | none | cheap | gate_up | full
  int64_t head_chunk_tokens = 0;     // 0: chosen by memory.
  int64_t nonfinite_steps_max = 10;  // Skipped steps in a row that end the run.
};

struct SwarmConfig {
  std::string coordinator;          // "host:port"; empty: a solo run without outer loop.
  std::string security = "secret";  // secret | keys | none
  std::string coordinator_key;      // With "keys": the coordinator's public key.
  int64_t start_members = 1;
  int64_t members_min = 1;
  int64_t audit_chunks = 1;
  bool adopt_newer = false;
  std::string plan = "auto";  // auto | direct | two-level | ring
  double dead_seconds = 15;
  // 0: follow from dead_seconds; load_run_config() fills them in (src/train/time_outs.h).
  double heartbeat_seconds = 0;
  double stall_seconds = 0;
  double ready_grace_seconds = 0;
  double coordinator_patience_seconds = 0;
  double start_grace_seconds = 0;
  double round_timeout_seconds = 0;
  double join_timeout_seconds = 0;
  bool fail_over = true;
  std::string tie_breaker;  // Name of a node.
};

struct EvaluationConfig {
  int64_t every_steps = 0;  // 0: only before the first and after the last step.
  int64_t rows = 64;
};

struct CheckpointConfig {
  int64_t every_steps = 0;  // 0: only at the end and when stopped.
  int64_t keep = 3;
  std::string start_from;  // Empty: random numbers.
  int64_t also_hugging_face = 0;
  std::string hugging_face_dtype = "bf16";
};

// What differs between the nodes of a run.
struct NodeConfig {
  std::string name = "node";
  std::string run_directory = "runs/atoll";
  std::string device = "auto";    // auto | cpu | cuda
  int64_t ranks = 0;              // GPUs, or CPU workers; 0: all visible GPUs, one CPU worker.
  std::string sharding = "auto";  // auto | replicated | gradients | full
  double rank_timeout_seconds = 60;
  int64_t threads = 0;                        // CPU threads of all ranks; 0: all processors.
  std::string memory = "standard";            // standard | lean
  bool offload_moments = false;               // Into the host's memory.
  std::string attention = "auto";             // auto | cudnn | plain; of GPUs.
  bool deterministic = false;                 // Of GPUs; CPUs always are.
  int64_t communication_multiprocessors = 0;  // That products leave to NCCL; with several GPUs.
  bool weight_gradient_stream = false;
  std::string run_secret_file = "run.secret";
  std::string key_file;           // Empty: one that is made in the run directory.
  std::string allowed_keys_file;  // Of the coordinator of a run with "keys".
  std::string listen = "0.0.0.0:0";
  // "host:port" that others dial; empty: the address the coordinator sees; "auto": as the provider
  // of the machine tells (train/port_map.h), or else empty.
  std::string advertise = "auto";
  int64_t results_kept = 4;   // Of so many rounds of each fragment, for those who catch up.
  double gap_share = 0.75;    // Of the time in which nothing of a round is sent, for them.
  double uplink_mbit = 0;     // The node sends no more, whatever for; 0: no bound.
  std::string status_listen;  // "host:port" of the status page; empty: none.
  double price_per_gb = 0;    // Of what is sent, in any currency; 0: not given.
  // A worse line than there is, see net::RehearsalOptions; 0: not.
  struct Rehearse {
    double rate_mbit = 0;
    double delay_ms = 0;
    double cut_seconds = 0;
  } rehearse;
};

inline constexpr const char* kAdvertiseAuto = "auto";

struct RunConfig {
  std::string comment;         // For people: the arithmetic behind the numbers.
  std::string name = "atoll";  // Nodes of another name are refused.
  int64_t seed = 42;
  model::ModelConfig model;
  DataConfig data;
  TrainingConfig training;
  optim::OptimizerConfig optimizer;
  outer::OuterConfig outer;
  SwarmConfig swarm;
  EvaluationConfig evaluation;
  CheckpointConfig checkpoint;
  NodeConfig node;
  // Not in the file: the keys given with --change, which may differ from a checkpoint's.
  std::vector<std::string> changed_keys;
  // Nor these: the time-outs that follow from swarm.dead_seconds, as "swarm.stall_seconds".
  std::vector<std::string> derived_keys;
};

void describe(base::ConfigVisitor& v, RunConfig& config);

// Reads the file, applies overrides ("a.b=value") and then changes (the same, of keys that may
// change when a run goes on) in order, fills derived defaults (schedule.total_steps, time-outs),
// checks what fields mean together. Throws bad_input that names file, key and what was found.
RunConfig load_run_config(base::Storage& storage, const std::string& path,
                          const std::vector<std::string>& overrides,
                          const std::vector<std::string>& changes = {});

// The whole config as JSON, as resolved.
std::string to_json(const RunConfig& config);

// `seed` and `data` as JSON: what decides which documents the run holds out. And back; `source` is
// where the text comes from. Throws bad_input as load_run_config() does.
std::string data_to_json(const RunConfig& config);
void read_data_json(const std::string& text, const std::string& source, RunConfig& config);

// Everything that must be equal on all nodes of a run, and between a run and its checkpoints, as
// JSON with the config's own keys: name, seed, model, optimiser, outer loop, number of steps. Equal
// texts are equal values.
std::string shared_config(const RunConfig& config);
// Of that text.
base::Digest shared_digest(const RunConfig& config);

}  // namespace train
