// The arithmetic of the bench's report, by hand.
#include "train/bench.h"

#include <cmath>

#include "support/catch.h"
#include "train/ceilings.h"
#include "train/step_parts.h"
#include "train/timed_ops.h"

namespace {

using train::PartOf;

// A batch of rows of 8 tokens in which documents begin where it is said.
data::Batch packed(const std::vector<int32_t>& document_starts) {
  return {.step = 0,
          .tokens = {},
          .targets = {},
          .document_starts = document_starts,
          .target_count = int64_t(document_starts.size())};
}

// Block i of a made-up model takes 3 ms in a product and 1 ms in each of two norms per micro-batch,
// of which the last block leaves out one product that the others make again; the head 5 and 1.
std::vector<train::BenchPart> made_up_parts(const model::ModelConfig& config, int64_t micro) {
  const int64_t layers = config.layers;
  const auto part = [](const char* name, PartOf part_of, int64_t calls, double each) {
    train::BenchPart one;
    one.name = name;
    one.part_of = part_of;
    one.calls = calls;
    one.seconds = each * double(calls);
    return one;
  };
  return {part("product", PartOf::kBlocks, micro * (2 * layers - 1), 3e-3),
          part("norm", PartOf::kBlocksAndHead, micro * (2 * layers + 1), 1e-3),
          part("head", PartOf::kOnce, 2 * micro, 5e-3),
          part("adamw", PartOf::kParameters, 1, 1e-9 * double(model::parameter_count(config)))};
}

}  // namespace

TEST_CASE("attention is counted inside documents", "[bench]") {
  // One document per row: half of the row.
  REQUIRE(train::mean_keys(packed(std::vector<int32_t>(16, 0)), 8) == 4);
  // 3 + 5 tokens, and 8: (9 + 25 + 64) / 2 pairs over 16 tokens.
  REQUIRE(train::mean_keys(packed({0, 0, 0, 3, 3, 3, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0}), 8) ==
          Approx(98.0 / 2 / 16));
}

TEST_CASE("what a part loses is its time beyond the ceiling of its kind", "[bench]") {
  // 6 TFLOP at 2 TFLOP/s take 3 s.
  const auto product = train::bench_part(
      {.name = "product", .calls = 2, .seconds = 4, .flop = 6e12, .bytes = 1e9}, 2e12, 1e9);
  REQUIRE(product.lost_seconds == Approx(1));
  REQUIRE(product.tflops_per_second == Approx(1.5));
  REQUIRE(product.bytes == 1e9);
  // 5 GB at 10 GB/s take half a second.
  const auto norm =
      train::bench_part({.name = "norm", .calls = 1, .seconds = 2, .bytes = 5e9}, 2e12, 10e9);
  REQUIRE(norm.lost_seconds == Approx(1.5));
  REQUIRE(norm.tflops_per_second == 0);
  REQUIRE(norm.gigabytes_per_second == Approx(2.5));
  REQUIRE(std::isnan(
      train::bench_part({.name = "norm", .seconds = 2, .bytes = 5e9}, 2e12, 0).lost_seconds));
}

TEST_CASE("timed operations count FLOP, and bytes of sums twice", "[bench]") {
  auto backends = backend::make_cpu_backends({.ranks = 1, .threads_per_rank = 1});
  backend::Device& device = *backends.front().device;
  const auto ops = train::TimedOps::create(std::move(backends.front().ops), device, 7);
  auto& stream = device.compute_stream();
  const auto a = device.allocate(4096, "a"), b = device.allocate(4096, "b"),
             out = device.allocate(4096, "out");
  const auto matmul = [&](int64_t m, int64_t n, int64_t k, bool accumulate) {
    ops->matmul({.out = out->tensor(backend::DType::kFloat32, {m, n}),
                 .a = a->tensor(backend::DType::kFloat32, {m, k}),
                 .b = b->tensor(backend::DType::kFloat32, {n, k}),
                 .transpose_b = true,
                 .accumulate = accumulate},
                stream);
  };
  ops->start(4);
  matmul(2, 3, 5, false);
  matmul(2, 3, 5, true);
  matmul(2, 7, 5, false);
  const auto parts = ops->stop();
  REQUIRE(parts.size() == 2);
  for (const train::TimedPart& part : parts) {
    const bool is_head = part.name == "product 2x7x5";
    REQUIRE(part.part_of == (is_head ? PartOf::kOnce : PartOf::kBlocks));
    REQUIRE(part.calls == (is_head ? 1 : 2));
    REQUIRE(part.flop == (is_head ? 2.0 * 2 * 7 * 5 : 2 * 2.0 * 2 * 3 * 5));
    // Operands of 10 and 15 elements (35 for the head) in fp32; 6 results once, and twice.
    REQUIRE(part.bytes == (is_head ? 4 * (10 + 35 + 14) : 4 * (2 * (10 + 15) + 6 + 12)));
  }
}

TEST_CASE("timed attention is counted by the keys that it is told", "[bench]") {
  auto backends = backend::make_cpu_backends({.ranks = 1, .threads_per_rank = 1});
  backend::Device& device = *backends.front().device;
  const auto ops = train::TimedOps::create(std::move(backends.front().ops), device, 1000);
  const auto qkv = device.allocate(8 * 12 * 4, "qkv"), out = device.allocate(8 * 4 * 4, "out"),
             starts = device.allocate(8 * 4, "starts");
  ops->start(2.5);
  ops->attention_forward({.out = out->tensor(backend::DType::kFloat32, {8, 4}),
                          .lse = {},
                          .qkv = qkv->tensor(backend::DType::kFloat32, {8, 12}),
                          .document_start = starts->tensor(backend::DType::kInt32, {8}),
                          .document_count = 1,
                          .sequence_length = 8,
                          .heads = 1,
                          .kv_heads = 1,
                          .head_size = 4},
                         device.compute_stream());
  const auto parts = ops->stop();
  REQUIRE(parts.size() == 1);
  REQUIRE(parts.front().flop == 4.0 * 8 * 2.5 * 4);
  REQUIRE(parts.front().bytes == 8 * (12 + 4) * 4);
}

TEST_CASE("a step of other blocks follows from the parts", "[bench]") {
  constexpr int64_t kMicroBatches = 3;
  for (const int64_t layers : {2, 3, 8}) {
    model::ModelConfig config, twice;
    config.layers = layers;
    twice.layers = 2 * layers;
    const auto parts = made_up_parts(config, kMicroBatches);
    const double sum = train::seconds_of(parts);
    const double expected = train::seconds_of(made_up_parts(twice, kMicroBatches));
    const auto of_blocks = [&](double step_seconds, int64_t blocks) {
      return train::extrapolated_step_seconds(parts, config, kMicroBatches, step_seconds, blocks);
    };
    REQUIRE(of_blocks(sum, 2 * layers) == Approx(expected));
    REQUIRE(of_blocks(sum, layers) == Approx(sum));
    // A tenth of the step in no part stays a tenth.
    REQUIRE(of_blocks(sum / 0.9, 2 * layers) == Approx(expected / 0.9));
  }
}

TEST_CASE("ceilings are measured on every shape, and say what they could not", "[bench]") {
  auto backends = backend::make_cpu_backends({.ranks = 1, .threads_per_rank = 1});
  const train::CeilingTimes times = {
      .headline_seconds = 0.01, .shape_seconds = 0.01, .copy_seconds = 0.01};
  // 256 TiB of results: more than an address space.
  constexpr int64_t kHuge = int64_t{1} << 23;
  const auto ceilings = train::measure_ceilings(
      backends.front(), {{64, 32, 16}, {kHuge, kHuge, 1}, {8, 8, 8}}, times);
  REQUIRE(ceilings.products.size() == 2);
  REQUIRE(ceilings.products.front().shape.m == 64);
  REQUIRE(ceilings.flops ==
          std::max(ceilings.products.front().flops, ceilings.products.back().flops));
  REQUIRE(ceilings.flops > 0);
  REQUIRE(ceilings.bytes_per_second > 0);
  REQUIRE(ceilings.error.find("product 8388608x8388608x1") != std::string::npos);
  REQUIRE(backends.front().device->allocated_bytes() == 0);
}
