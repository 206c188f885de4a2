// Memory plans of the presets against arithmetic by hand, and the choice between policies.
#include "train/memory_plan.h"

#include "base/math.h"
#include "support/catch.h"
#include "train/row_share.h"

namespace {

using shard::Parameters;

train::RunConfig preset(const std::string& name, const std::vector<std::string>& overrides = {}) {
  const auto storage = base::make_disk_storage();
  return train::load_run_config(*storage, std::string(ATOLL_SOURCE_ROOT "/configs/") + name,
                                overrides);
}

int64_t bytes_of(const train::MemoryPlan& plan, const std::string& part) {
  for (const auto& [name, bytes] : plan.parts) {
    if (name == part) return bytes;
  }
  FAIL("no part " << part);
  return 0;
}

constexpr train::Machine kOneH100{.gpus = 1, .bytes_per_gpu = 78 * base::kGiB};
constexpr train::Machine kOneH200{.gpus = 1, .bytes_per_gpu = 139 * base::kGiB};
constexpr train::Machine kEightH100{.gpus = 8, .bytes_per_gpu = 78 * base::kGiB};

}  // namespace

TEST_CASE("presets have the sizes that they are known by", "[config]") {
  const auto count = [](const std::string& name) {
    return model::parameter_count(preset(name).model);
  };
  REQUIRE(count("intellect-1-10b.json") == 10'211'381'248);
  REQUIRE(count("llama-3-8b.json") == 8'030'261'248);
  REQUIRE(count("prime-7b.json") == 6'738'415'616);
  REQUIRE(count("prime-1b.json") == 1'055'991'808);
  REQUIRE(count("prime-150m.json") == 219'702'272);
  const auto intellect_1 = preset("intellect-1-10b.json").model;
  REQUIRE(model::flops_per_token_palm(intellect_1) == Approx(75.03e9).epsilon(1e-4));
}

TEST_CASE("one 80 GB GPU trains INTELLECT-1 lean, and only lean", "[memory]") {
  const auto config = preset("intellect-1-10b.json");
  const auto plan = train::best_plan(config, kOneH100);
  INFO(plan.text());
  REQUIRE(plan.fits());
  REQUIRE(plan.memory == Parameters::Memory::kLean);
  REQUIRE(bytes_of(plan, "masters") == Approx(2 * 10'211'381'248.0).epsilon(1e-6));
  // Two codes of a byte, and two scales of 4 bytes for 256 elements.
  REQUIRE(bytes_of(plan, "moments") == Approx(10'211'381'248.0 * (2 + 8.0 / 256)).epsilon(1e-6));
  // Of the embedding, and of a block for the update beside the backward.
  REQUIRE(plan.lean_gradients == 2);
  const int64_t embedding = 128'256 * 4096, block = 10'211'381'248 / 42;
  REQUIRE(bytes_of(plan, "gradients") > 4 * embedding + 3 * block);
  const auto one_buffer =
      train::plan_memory(config, kOneH100, {.memory = plan.memory}, plan.recompute);
  REQUIRE(bytes_of(one_buffer, "gradients") == Approx(4.0 * double(embedding)).epsilon(1e-5));
  // Where only one fits, one is taken.
  const auto tight =
      train::best_plan(config, {.gpus = 1, .bytes_per_gpu = one_buffer.bytes_per_gpu()});
  REQUIRE(tight.fits());
  REQUIRE(tight.recompute == plan.recompute);
  REQUIRE(tight.lean_gradients == 1);
  REQUIRE(plan.host_bytes == 8 * 10'211'381'248);
  auto in_swarm = config;
  in_swarm.swarm.coordinator = "meeting.example.org:4000";
  in_swarm.outer.codec = "int8";
  in_swarm.node.results_kept = 3;
  const int64_t result_bytes = 10'211'381'248 / 512 * (512 + 4);
  REQUIRE(
      train::plan_memory(in_swarm, kOneH100, {.memory = plan.memory}, plan.recompute).host_bytes ==
      plan.host_bytes + 3 * result_bytes);
  const auto standard = train::plan_memory(config, kOneH100, {}, model::Recompute::kFull);
  REQUIRE_FALSE(standard.fits());
  REQUIRE(standard.text().find("node.memory") != std::string::npos);
}

TEST_CASE("a larger GPU recomputes less", "[memory]") {
  const auto config = preset("intellect-1-10b.json");
  const auto small = train::best_plan(config, kOneH100), large = train::best_plan(config, kOneH200);
  REQUIRE(large.fits());
  REQUIRE(large.recompute < small.recompute);
  REQUIRE(train::predict_step_seconds(config, large) < train::predict_step_seconds(config, small));
}

// The table of the design: 66 GB with everything kept but norms and SwiGLU.
TEST_CASE("eight 80 GB GPUs train INTELLECT-1 without making products again", "[memory]") {
  const auto config = preset("intellect-1-10b.json");
  const auto plan = train::plan_memory(config, kEightH100, {}, model::Recompute::kCheap);
  INFO(plan.text());
  REQUIRE(plan.fits());
  REQUIRE(plan.bytes_per_gpu() <= 70e9);
  REQUIRE(bytes_of(plan, "masters") == Approx(4 * 10'211'381'248.0 / 8).epsilon(1e-6));
  REQUIRE(train::best_plan(config, kEightH100).memory == Parameters::Memory::kStandard);
}

// 42 blocks of 20.9 ms and the head 39.7 ms for 8192 tokens; 16 such micro-batches per GPU.
TEST_CASE("the predicted step is the budget's", "[memory]") {
  const auto config = preset("intellect-1-10b.json");
  const auto plan = train::plan_memory(config, kEightH100, {}, model::Recompute::kCheap);
  const double seconds = train::predict_step_seconds(config, plan);
  REQUIRE(8192.0 * 16 / seconds == Approx(8800).epsilon(0.02));
}

TEST_CASE("auto takes the fastest policy that fits", "[memory]") {
  auto config = preset("prime-1b.json");
  REQUIRE(train::choose_plan(config, kOneH100).recompute == model::Recompute::kNone);
  REQUIRE(train::choose_plan(config, {.gpus = 1, .bytes_per_gpu = 40 * base::kGiB}).recompute >
          model::Recompute::kCheap);
  const auto impossible = train::choose_plan(config, {.gpus = 1, .bytes_per_gpu = base::kGiB});
  REQUIRE_FALSE(impossible.fits());
  REQUIRE(impossible.recompute == model::Recompute::kFull);
  config.training.recompute = "gate_up";
  REQUIRE(train::choose_plan(config, kOneH100).recompute == model::Recompute::kGateUp);
}

TEST_CASE("the head's chunk is the largest that fits beside the rest", "[memory]") {
  const auto config = preset("prime-1b.json", {"training.recompute=none"});
  REQUIRE(config.training.head_chunk_tokens == 0);
  const auto roomy = train::choose_plan(config, kOneH200);
  REQUIRE(roomy.head_chunk_tokens == 8192);
  REQUIRE(train::transformer_options(config, roomy).head_chunk_tokens == 8192);
  for (const int64_t chunk : {8192, 4096, 2048, 1024}) {
    auto explicit_chunk = config;
    explicit_chunk.training.head_chunk_tokens = chunk;
    const auto tight = train::choose_plan(explicit_chunk, kOneH200);
    REQUIRE(tight.head_chunk_tokens == chunk);
    // The logits of a token are V bf16 numbers.
    REQUIRE(bytes_of(roomy, "activations") - bytes_of(tight, "activations") ==
            (8192 - chunk) * config.model.vocabulary * 2);
    const auto exactly =
        train::choose_plan(config, {.gpus = 1, .bytes_per_gpu = tight.bytes_per_gpu()});
    REQUIRE(exactly.fits());
    REQUIRE(exactly.head_chunk_tokens == chunk);
    if (chunk == 1024) continue;
    const auto less =
        train::choose_plan(config, {.gpus = 1, .bytes_per_gpu = tight.bytes_per_gpu() - 1});
    REQUIRE(less.head_chunk_tokens == chunk / 2);
  }
  // A larger chunk is never bought with more recomputation.
  const auto automatic = preset("prime-1b.json");
  const auto least = train::plan_memory(automatic, kOneH200, {}, model::Recompute::kNone);
  const auto plan =
      train::choose_plan(automatic, {.gpus = 1, .bytes_per_gpu = least.bytes_per_gpu()});
  REQUIRE(plan.recompute == model::Recompute::kNone);
  REQUIRE(plan.head_chunk_tokens == 1024);
}

TEST_CASE("moments in the host's memory leave the GPU", "[memory]") {
  const auto config = preset("intellect-1-10b.json", {"training.head_chunk_tokens=4096"});
  const auto offloading = preset("intellect-1-10b.json",
                                 {"training.head_chunk_tokens=4096", "node.offload_moments=true"});
  const auto plan = train::best_plan(config, kOneH100);
  const auto offloaded =
      train::plan_memory(offloading, kOneH100, train::parameter_options(plan), plan.recompute);
  REQUIRE(plan.bytes_per_gpu() - offloaded.bytes_per_gpu() == bytes_of(plan, "moments"));
  REQUIRE(offloaded.host_bytes - plan.host_bytes == bytes_of(plan, "moments"));
  REQUIRE(train::predict_step_seconds(offloading, offloaded) >
          train::predict_step_seconds(config, plan) + 0.3);
}

TEST_CASE("a stream for weight gradients needs a buffer and a workspace", "[memory]") {
  const auto config = preset("prime-1b.json", {"training.head_chunk_tokens=4096"});
  const auto beside = preset(
      "prime-1b.json", {"training.head_chunk_tokens=4096", "node.weight_gradient_stream=true"});
  const auto plan = train::plan_memory(config, kOneH100, {}, model::Recompute::kCheap);
  const auto larger = train::plan_memory(beside, kOneH100, {}, model::Recompute::kCheap);
  const int64_t tokens = config.training.micro_batch_rows * config.model.sequence_length;
  REQUIRE(bytes_of(larger, "activations") - bytes_of(plan, "activations") ==
          tokens * config.model.width * 2);
  REQUIRE(larger.bytes_per_gpu() - plan.bytes_per_gpu() ==
          tokens * config.model.width * 2 + (int64_t{32} << 20));
}

TEST_CASE("lean needs one micro-batch per step", "[memory]") {
  REQUIRE_THROWS_AS(preset("prime-1b.json", {"node.memory=lean"}), base::Error);
  const auto config = preset("prime-1b.json", {"node.memory=lean", "training.batch_rows=32"});
  REQUIRE(train::choose_plan(config, kOneH100).memory == Parameters::Memory::kLean);
}

TEST_CASE("auto shares out as little as fits, and makes again as little as it can", "[memory]") {
  const auto choose = [](const char* name, int64_t gpus, int64_t gib) {
    return train::choose_plan(preset(name), {.gpus = gpus, .bytes_per_gpu = gib * base::kGiB});
  };
  using shard::Sharding;
  REQUIRE(choose("prime-1b.json", 8, 78).sharding == Sharding::kReplicated);
  const auto shared = choose("prime-1b.json", 8, 48);
  INFO(shared.text());
  REQUIRE(shared.sharding == Sharding::kGradients);
  REQUIRE(shared.recompute == model::Recompute::kNone);
  REQUIRE(choose("intellect-1-10b.json", 8, 78).sharding == Sharding::kFull);
  // Everything fits in more ways: nothing is made again before more is shared out.
  const auto large = choose("intellect-1-10b.json", 8, 139);
  REQUIRE(large.recompute == model::Recompute::kNone);
  REQUIRE(large.sharding == Sharding::kGradients);

  auto config = preset("prime-1b.json");
  config.node.sharding = "full";
  REQUIRE(train::choose_plan(config, kEightH100).sharding == Sharding::kFull);
  auto large_model = preset("intellect-1-10b.json");
  large_model.node.sharding = "replicated";
  REQUIRE(train::choose_plan(large_model, kEightH100).text().find("node.sharding to auto") !=
          std::string::npos);
  config.training.recompute = "gate_up";
  REQUIRE(train::best_plan(config, kEightH100).policy() == "gate_up, sharding full");
  REQUIRE(train::best_plan(config, kOneH100).policy() == "gate_up");
}

TEST_CASE("the rows of a step are dealt out to any number of ranks", "[memory]") {
  for (const int64_t rows : {1, 7, 8, 128}) {
    for (const int64_t micro_batch : {1, 4, 128}) {
      for (const int ranks : {1, 2, 3, 8}) {
        const auto share =
            train::RowShare::of({.batch_rows = rows, .micro_batch_rows = micro_batch}, ranks);
        INFO(rows << " rows, " << micro_batch << " at once, " << ranks << " ranks");
        const int64_t slots = share.turns * share.micro_batch_rows * ranks;
        REQUIRE(slots >= rows);
        REQUIRE(share.micro_batch_rows <= micro_batch);
        // No turn is superfluous.
        REQUIRE(slots - share.micro_batch_rows * ranks < rows);
      }
    }
  }
}
