#include "train/run_config.h"

#include <fmt/format.h>

#include "net/types.h"
#include "train/config_override.h"
#include "train/shared_config.h"
#include "train/time_outs.h"

namespace train {
namespace {

using base::bad_input;

constexpr base::Range kPositive{1, 1e12};
constexpr base::Range kNotNegative{0, 1e15};
constexpr base::Range kSeconds{0.01, 1e7};

void describe_data(base::ConfigVisitor& v, DataConfig& c) {
  v.text("tokenizer", c.tokenizer,
         "How text became tokens, which checkpoints keep: bytes, the path of a tokenizer.json, or "
         "auto: PREFIX.tokenizer.json, as `atoll prepare` left it beside the data.");
  v.list(
      "sources", "Datasets to mix; at least one.", int64_t(c.sources.size()),
      [&](int64_t count) { c.sources.resize(size_t(count)); },
      [&](int64_t index) {
        // A visitor that lists keys describes element 0 even if the list is empty.
        DataSource none;
        DataSource& source = index < int64_t(c.sources.size()) ? c.sources[size_t(index)] : none;
        v.text("prefix", source.prefix, "Path of the dataset without .bin and .idx.");
        v.number("weight", source.weight, {0, 1e9},
                 "Share of the samples, relative to the other sources.");
      });
  v.number("validation_fraction", c.validation_fraction, {0, 0.5},
           "Share of the documents that are held out for validation.");
}

void describe_training(base::ConfigVisitor& v, TrainingConfig& c) {
  v.integer("steps", c.steps, kPositive, "Inner steps of the whole run.");
  v.integer("batch_rows", c.batch_rows, {1, 1e6},
            "Rows of model.sequence_length tokens per node and step.");
  v.integer("micro_batch_rows", c.micro_batch_rows, {1, 1e6},
            "Rows computed at once; divides batch_rows. Gradients accumulate over micro-batches.");
  v.choice(
      "recompute", c.recompute, {{"auto", "none", "cheap", "gate_up", "full"}},
      "Activations made again in the backward pass: none; cheap (norms, SwiGLU); gate_up (that "
      "product too); full (all but each block's input); auto: as few as fit the GPU's memory "
      "(CPU: cheap).");
  v.integer(
      "head_chunk_tokens", c.head_chunk_tokens, {0, 1e6},
      "Tokens whose logits exist at once; 0: up to 8192, as many as fit the GPU's memory (CPU: "
      "1024).");
  v.integer("nonfinite_steps_max", c.nonfinite_steps_max, {1, 1e6},
            "Steps in a row with a loss or gradient that is not finite (each is skipped) that end "
            "the run.");
}

void describe_fail_over(base::ConfigVisitor& v, SwarmConfig& c) {
  v.boolean(
      "fail_over", c.fail_over,
      "When the coordinator is lost one of the nodes takes the run over; nothing is committed "
      "without most of the last members. false: the one coordinator decides with whoever is "
      "there. The same on all nodes.");
  v.text("tie_breaker", c.tie_breaker,
         "The name of a node with which half of the members are enough; empty: half are enough for "
         "the coordinator they had, not for another one. The same on all nodes.");
}

void describe_start(base::ConfigVisitor& v, CheckpointConfig& c) {
  v.text("start_from", c.start_from,
         "What a new run begins with: a folder of Hugging Face's transformers, a checkpoint, or a "
         "run directory; empty: random numbers. The same on all nodes.");
}

void describe_time_outs(base::ConfigVisitor& v, SwarmConfig& c) {
  v.number(
      "dead_seconds", c.dead_seconds, {0.03, 1e6},
      "A member that is silent for so long is dead. The time-outs below follow from it, unless "
      "they are set.");
  for (const TimeOut& one : time_outs()) {
    v.number(one.name, c.*one.value, {0, 1e9},
             fmt::format("{} 0: {} dead_seconds.", one.help, times_text(one)));
  }
}

void describe_swarm(base::ConfigVisitor& v, SwarmConfig& c) {
  v.text("coordinator", c.coordinator,
         "host:port of the coordinator; empty: a solo run without outer loop.");
  v.choice("security", c.security, {{"secret", "keys", "none"}},
           "How links are secured. secret: TLS, for whoever has the run's secret; keys: TLS, for "
           "the keys on the coordinator's list; none: not at all.");
  v.text("coordinator_key", c.coordinator_key,
         "With security keys, for nodes: the public key of the coordinator.");
  v.integer("start_members", c.start_members, {1, double(net::kMembersMax)},
            "Training starts when so many are there.");
  v.integer("members_min", c.members_min, {1, double(net::kMembersMax)},
            "No round opens with fewer.");
  v.choice("plan", c.plan, {{"auto", "direct", "two-level", "ring"}},
           "For the coordinator: how contributions come together. direct: at each chunk's owner; "
           "two-level: in each region first; ring: on a path; auto: as the links were measured to "
           "be quickest.");
  v.integer("audit_chunks", c.audit_chunks, {0, 1024},
            "Sums of others that a member makes again after each round, to see whether they are "
            "right; 0: none.");
  v.boolean("adopt_newer", c.adopt_newer,
            "For the coordinator: whoever comes with a newer state than the run's has the right "
            "one.");
  describe_time_outs(v, c);
  describe_fail_over(v, c);
}

void describe_node(base::ConfigVisitor& v, NodeConfig& c) {
  v.text("name", c.name, "Stands in logs and metrics.");
  v.text("run_directory", c.run_directory,
         "Metrics, log and checkpoints; an existing run goes on from it.");
  v.choice("device", c.device, {{"auto", "cpu", "cuda"}},
           "What to compute on; auto: a GPU if there is one.");
  v.integer("ranks", c.ranks, {0, backend::kRanksMax},
            "Devices that share the node's work: GPUs (0: all visible ones), or workers on the CPU "
            "(0: one). Nodes with different numbers train in one run.");
  v.choice("sharding", c.sharding, {{"auto", "replicated", "gradients", "full"}},
           "What ranks share out: replicated: nothing; gradients: masters, moments and gradients; "
           "full: weights too; auto: as little as fits the GPUs' memory (CPU: full).");
  v.number("rank_timeout_seconds", c.rank_timeout_seconds, kSeconds,
           "A rank that is missing in a collective for so long ends the node with exit code 3.");
  v.integer("threads", c.threads, {0, 4096}, "CPU threads of all ranks; 0: all processors.");
  v.choice("memory", c.memory, {{"standard", "lean"}},
           "standard: 18 bytes per parameter on a GPU; lean: 4 (bf16 masters, 8-bit moments, no "
           "gradients kept), for a model that would not fit otherwise.");
  v.boolean("offload_moments", c.offload_moments,
            "On GPUs: the optimiser's moments lie in the host's memory, and every step moves them "
            "over the bus and back.");
  v.boolean("weight_gradient_stream", c.weight_gradient_stream,
            "On GPUs: products that make the gradients of blocks' weights run on a second stream, "
            "beside the rest of the backward pass. The same bits, for a little memory.");
  v.choice("attention", c.attention, {{"auto", "cudnn", "plain"}},
           "On GPUs; auto: cuDNN, or plain kernels where it cannot be had.");
  v.boolean("deterministic", c.deterministic,
            "On GPUs: two runs give the same bits, a few percent slower. CPUs always do.");
  v.integer("communication_multiprocessors", c.communication_multiprocessors, {0, 64},
            "With several GPUs: multiprocessors of each that products leave to NCCL's collectives, "
            "which then start at once. Products are slower by their share.");
  v.text("run_secret_file", c.run_secret_file,
         "The run's secret, from `atoll keys new-run`; ATOLL_RUN_SECRET in the environment goes "
         "before.");
  v.text("key_file", c.key_file,
         "The node's private key, from `atoll keys new-node`; empty: node_key in the run "
         "directory.");
  v.text("allowed_keys_file", c.allowed_keys_file,
         "With security keys, for the coordinator: the list of keys that are let in. It is read "
         "again all the time.");
  v.text("listen", c.listen, "host:port for other members; port 0: any free one.");
  v.text("advertise", c.advertise,
         "host:port that other members dial; empty: the address the coordinator sees; auto: what "
         "the machine's provider tells in the environment (RunPod, Vast.ai), or else empty.");
  v.integer("results_kept", c.results_kept, {0, 1024},
            "Rounds of each fragment whose results stay in the host's memory (1 byte per parameter "
            "and round in int8, half of it in int4), so that newcomers and those who were away "
            "can bring an older state up to date.");
  v.number("gap_share", c.gap_share, {0.01, 1},
           "Of the time in which nothing of a round is sent: for those who fetch the state.");
  v.number(
      "uplink_mbit", c.uplink_mbit, {0, 1e6},
      "The node sends at most so many Mbit/s to all others together, so that it does not fill a "
      "line that others use too; 0: no bound. Heartbeats and the like go first.");
  v.text("status_listen", c.status_listen,
         "host:port of a status page over HTTP, with /metrics for Prometheus (docs/watching.md); "
         "port 0: any free one; empty: none. There is no password: keep it at 127.0.0.1.");
  v.number("price_per_gb", c.price_per_gb, {0, 1e6},
           "What a gigabyte that the node sends costs, in any currency, for the status page; 0: "
           "not given.");
  v.section("rehearse", "A worse line than the node has, to try out what a run would be over it.",
            [&] {
              v.number("rate_mbit", c.rehearse.rate_mbit, {0, 1e6},
                       "The node sends and receives at most so many Mbit/s; 0: no bound.");
              v.number("delay_ms", c.rehearse.delay_ms, {0, 60'000},
                       "What the node sends comes so much later.");
              v.number("cut_seconds", c.rehearse.cut_seconds, {0, 1e7},
                       "All its links are cut so often; 0: never.");
            });
}

void describe_seed(base::ConfigVisitor& v, RunConfig& c) {
  v.integer("seed", c.seed, kNotNegative, "Seed of the initial parameters and of the data order.");
}

// What decides which documents are held out.
void describe_hold_out(base::ConfigVisitor& v, RunConfig& c) {
  describe_seed(v, c);
  v.section("data", "", [&] { describe_data(v, c.data); });
}

// The part that must be equal on all nodes.
void describe_shared(base::ConfigVisitor& v, RunConfig& c, bool only_used = false) {
  v.text("name", c.name, "Name of the run; nodes of another run are refused.");
  describe_seed(v, c);
  v.section("model", "The transformer.", [&] { model::describe(v, c.model, only_used); });
  v.section("optimizer", "The inner optimiser.", [&] { optim::describe(v, c.optimizer); });
  v.section("outer", "The outer loop (DiLoCo).", [&] { outer::describe(v, c.outer); });
}

void check_listen_addresses(const std::string& path, const RunConfig& config) {
  const auto check = [&](const char* key, const std::string& text) {
    if (const auto endpoint = net::parse_endpoint(text); !endpoint)
      throw bad_input(fmt::format("{}: {}: {}", path, key, endpoint.reason()),
                      "write it as host:port");
  };
  check("node.listen", config.node.listen);
  if (!config.node.advertise.empty() && config.node.advertise != kAdvertiseAuto)
    check("node.advertise", config.node.advertise);
  if (!config.node.status_listen.empty()) check("node.status_listen", config.node.status_listen);
  if (!config.swarm.coordinator.empty()) check("swarm.coordinator", config.swarm.coordinator);
}

// Lean gradients are used up inside the backward, so that nothing can be added to them after it.
void check_memory(const std::string& path, const RunConfig& config) {
  if (config.node.memory != "lean") return;
  if (config.training.batch_rows != config.training.micro_batch_rows) {
    throw bad_input(
        fmt::format("{}: node.memory is lean, which needs training.micro_batch_rows ({}) equal to "
                    "training.batch_rows ({})",
                    path, config.training.micro_batch_rows, config.training.batch_rows),
        "gradients are not kept from one micro-batch to the next");
  }
  if (config.node.ranks > 1) {
    throw bad_input(
        fmt::format("{}: node.memory is lean, but node.ranks is {}", path, config.node.ranks),
        "lean is for one GPU; several share out a model with node.memory standard");
  }
  if (config.optimizer.kind != "adamw") {
    throw bad_input(fmt::format("{}: node.memory is lean, but optimizer.kind is {}", path,
                                config.optimizer.kind),
                    "use adamw, or node.memory standard");
  }
}

void check_together(const std::string& path, const RunConfig& config) {
  model::validate(config.model);
  optim::validate(config.optimizer);
  check_listen_addresses(path, config);
  if (config.training.batch_rows % config.training.micro_batch_rows != 0) {
    throw bad_input(fmt::format(
        "{}: training.batch_rows ({}) is not a multiple of training.micro_batch_rows ({})", path,
        config.training.batch_rows, config.training.micro_batch_rows));
  }
  check_memory(path, config);
  const int64_t unit_count = config.model.layers + 2;
  if (config.outer.fragments > unit_count) {
    throw bad_input(fmt::format("{}: outer.fragments: expected at most {} (layers + 2), found {}",
                                path, unit_count, config.outer.fragments),
                    "1 is plain DiLoCo");
  }
  outer::validate(config.outer, path);
  check_time_outs(config.swarm, path);
  if (config.swarm.members_min > config.swarm.start_members) {
    throw bad_input(
        fmt::format("{}: swarm.members_min ({}) is larger than swarm.start_members ({})", path,
                    config.swarm.members_min, config.swarm.start_members));
  }
}

}  // namespace

void describe(base::ConfigVisitor& v, RunConfig& c) {
  v.text("comment", c.comment, "For people, e.g. the arithmetic behind the numbers.");
  describe_shared(v, c);
  v.section("data", "Where tokens come from.", [&] { describe_data(v, c.data); });
  v.section("training", "The inner loop.", [&] { describe_training(v, c.training); });
  v.section("swarm", "The nodes that train together.", [&] { describe_swarm(v, c.swarm); });
  v.section("evaluation", "Validation loss during training.", [&] {
    v.integer("every_steps", c.evaluation.every_steps, kNotNegative,
              "0: only before the first and after the last step.");
    v.integer("rows", c.evaluation.rows, {1, 1e9}, "Held-out rows per evaluation, at most.");
  });
  v.section("checkpoint", "State on disk.", [&] {
    v.integer("every_steps", c.checkpoint.every_steps, kNotNegative,
              "0: only at the end and when stopped.");
    v.integer("keep", c.checkpoint.keep, {1, 1e6}, "Newest checkpoints kept.");
    describe_start(v, c.checkpoint);
    v.integer("also_hugging_face", c.checkpoint.also_hugging_face, kNotNegative,
              "Every so many steps, and at the end, the model is written as a folder of Hugging "
              "Face's transformers too, to RUN/hugging_face; as many are kept. 0: never.");
    v.choice("hugging_face_dtype", c.checkpoint.hugging_face_dtype, {{"fp32", "bf16", "fp16"}},
             "How numbers lie in those.");
  });
  v.section("node", "What differs between the nodes of a run.", [&] { describe_node(v, c.node); });
}

RunConfig load_run_config(base::Storage& storage, const std::string& path,
                          const std::vector<std::string>& overrides,
                          const std::vector<std::string>& changes) {
  auto document = base::JsonValue::parse(storage.read_text(path));
  if (!document) throw bad_input(fmt::format("{}: {}", path, document.reason()));
  RunConfig config;
  for (const std::string& text : overrides) document = apply_override(*document, "--set", text);
  for (const std::string& text : changes) {
    const std::string& key = config.changed_keys.emplace_back(override_key("--change", text));
    if (!may_change(key)) {
      throw bad_input(fmt::format("--change {}: {} may not change in a run", text, key),
                      fmt::format("{} may", changeable_keys()));
    }
    document = apply_override(*document, "--change", text);
  }
  base::read_config(*document, path, [&](base::ConfigVisitor& v) { describe(v, config); });
  if (config.optimizer.schedule.total_steps == 0)
    config.optimizer.schedule.total_steps = config.training.steps;
  for (const std::string& name : derive_time_outs(config.swarm))
    config.derived_keys.push_back("swarm." + name);
  check_together(path, config);
  return config;
}

std::string to_json(const RunConfig& config) {
  RunConfig copy = config;
  return base::write_config([&](base::ConfigVisitor& v) { describe(v, copy); });
}

std::string data_to_json(const RunConfig& config) {
  RunConfig copy = config;
  return base::write_config([&](base::ConfigVisitor& v) { describe_hold_out(v, copy); }, -1);
}

void read_data_json(const std::string& text, const std::string& source, RunConfig& config) {
  const auto document = base::JsonValue::parse(text);
  if (!document) throw bad_input(fmt::format("{}: {}", source, document.reason()));
  base::read_config(*document, source,
                    [&](base::ConfigVisitor& v) { describe_hold_out(v, config); });
}

std::string shared_config(const RunConfig& config) {
  RunConfig copy = config;
  return base::write_config(
      [&](base::ConfigVisitor& v) {
        describe_shared(v, copy, /*only_used=*/true);
        // Only where it is not as always: runs have begun before there was a choice.
        if (!copy.swarm.fail_over || !copy.swarm.tie_breaker.empty())
          v.section("swarm", "", [&] { describe_fail_over(v, copy.swarm); });
        if (!copy.checkpoint.start_from.empty())
          v.section("checkpoint", "", [&] { describe_start(v, copy.checkpoint); });
        v.section("training", "", [&] { v.integer("steps", copy.training.steps, kPositive, ""); });
        v.section("data", "",
                  [&] { v.number("validation_fraction", copy.data.validation_fraction, {}, ""); });
      },
      -1);
}

base::Digest shared_digest(const RunConfig& config) {
  const std::string text = shared_config(config);
  return base::sha256(std::as_bytes(std::span(text)));
}

}  // namespace train
