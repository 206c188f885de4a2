// Plain attention against the CPU's. Forward and backward are compared apart: the backward's inputs
// are the forward's of the CPU, rounded to bf16, so that both sides get the same numbers.
#include <algorithm>
#include <fmt/format.h>

#include "cuda/attention_case.h"
#include "cuda/cuda_backend.h"
#include "cuda/device_under_test.h"

using namespace cuda_test;

namespace {

// A result is a sum in fp32, in another order than the CPU's, rounded to bf16 once.
constexpr Tolerance kResult{.relative = kBf16Rounding, .of_largest = 1e-5};
constexpr Tolerance kLse{.of_largest = 2e-6};  // Not rounded.

// Of the CPU's forward: what the backward gets on both sides.
struct Forward {
  Values out, lse;
};

Forward forward_of_cpu(const AttentionCase& a, const Values& qkv) {
  Side cpu(std::move(backend::make_cpu_backends({.threads_per_rank = 2}).front()));
  const AttentionTensors t(cpu, a, qkv, Values(size_t(a.out_count())));
  cpu.ops().attention_forward(t.forward(a), cpu.stream());
  return {rounded_to_bf16(cpu.download(t.out)), cpu.download(t.lse)};
}

void require_attention(const AttentionCase& a) {
  INFO(a.describe());
  const Values qkv = bf16_values(a.qkv_count(), 1, a.deviation),
               out_gradient = bf16_values(a.out_count(), 2);
  const Forward given = forward_of_cpu(a, qkv);
  require_same(
      [&](Side& side) {
        AttentionTensors t(side, a, qkv, out_gradient);
        side.ops().attention_forward(t.forward(a), side.stream());
        const Values out = side.download(t.out), lse = side.download(t.lse);
        t.out = t.compute(side, given.out, {a.B * a.T, a.H * a.D}, a.unaligned);
        t.lse = side.fp32(given.lse, {a.B, a.H, a.T});
        side.ops().attention_backward(t.backward(a), side.stream());
        return std::vector<Values>{out, lse, side.download(t.qkv_gradient)};
      },
      {kResult, kLse, kResult});
}

}  // namespace

TEST_CASE("attention of one position, and of fewer than a tile has") {
  require_attention({.B = 1, .T = 1, .H = 1, .K = 1, .D = 8});
  require_attention({.B = 3, .T = 1, .H = 4, .K = 2, .D = 64});
  require_attention({.B = 2, .T = 7, .H = 4, .K = 2, .D = 64, .document_mean = 3});
}

TEST_CASE("attention of one document per row, in several tiles") {
  require_attention({.B = 1, .T = 33, .H = 1, .K = 1, .D = 64});
  require_attention({.B = 2, .T = 64, .H = 2, .K = 1, .D = 128});
  require_attention({.B = 1, .T = 150, .H = 4, .K = 1, .D = 8});
}

TEST_CASE("attention of packed documents") {
  for (const int64_t mean : {1, 4, 20, 60}) {
    require_attention({.B = 2, .T = 64, .H = 4, .K = 2, .D = 16, .document_mean = mean});
  }
  require_attention({.B = 1, .T = 150, .H = 2, .K = 1, .D = 8, .document_mean = 50});
}

TEST_CASE("attention of common lengths, groups and head sizes") {
  for (const int64_t H : {2, 4, 8}) {
    for (const int64_t D : {8, 64, 128, 256}) {
      require_attention({.B = 1, .T = 33, .H = H, .K = 2, .D = D, .document_mean = 16});
    }
  }
  for (const int64_t T : {7, 32, 64}) {
    require_attention({.B = 1, .T = T, .H = 4, .K = 2, .D = 64, .document_mean = 16});
  }
}

TEST_CASE("attention of groups that do not divide a block's rows") {
  require_attention({.B = 1, .T = 33, .H = 5, .K = 1, .D = 8, .document_mean = 10});
  require_attention({.B = 2, .T = 20, .H = 6, .K = 2, .D = 8});
  require_attention({.B = 1, .T = 5, .H = 40, .K = 1, .D = 8});  // More heads than rows.
}

TEST_CASE("attention of every size of a lane's slice") {
  for (const int64_t D : {2, 6, 20, 66, 128, 130, 256}) {
    require_attention({.B = 1, .T = 35, .H = 2, .K = 1, .D = D, .document_mean = 20});
  }
}

TEST_CASE("attention of rows that do not begin at 16-byte addresses") {
  require_attention({.B = 1, .T = 35, .H = 2, .K = 1, .D = 64, .unaligned = true});
  require_attention({.B = 1, .T = 35, .H = 2, .K = 1, .D = 64, .unaligned_gradient = true});
}

TEST_CASE("attention of zeros and of large scores") {
  require_attention({.B = 1, .T = 40, .H = 2, .K = 1, .D = 16, .deviation = 0});
  // Scores of some hundreds: all but the largest weights are 0.
  require_attention({.B = 1, .T = 40, .H = 2, .K = 1, .D = 16, .deviation = 8});
}

TEST_CASE("attention of evaluation gives the same bits without log-sum-exp") {
  const AttentionCase a{.B = 2, .T = 40, .H = 4, .K = 2, .D = 8, .document_mean = 10};
  const Values qkv = bf16_values(a.qkv_count(), 5);
  require_same(
      [&](Side& side) {
        AttentionTensors t(side, a, qkv, Values(size_t(a.out_count())));
        side.ops().attention_forward(t.forward(a), side.stream());
        const Values expected = side.download(t.out);
        t.out = side.compute_out({a.B * a.T, a.H * a.D});
        t.lse = {};
        side.ops().attention_forward(t.forward(a), side.stream());
        REQUIRE(side.download(t.out) == expected);
        return std::vector<Values>{expected};
      },
      {kResult});
}

// On a GPU with cuDNN only; elsewhere it takes minutes. Tensor cores round the probabilities and
// their slopes to bf16 before they multiply them, which is some 2^-8 of a typical result: a tenth
// of the largest or less. Building a graph takes half a second: those of a shape serve all its
// documents.
TEST_CASE("attention of cuDNN", "[.gpu]") {
  const bool is_deterministic = GENERATE(false, true);
  AttentionCase a = GENERATE(AttentionCase{.B = 1, .T = 2048, .H = 8, .K = 2, .D = 128},
                             AttentionCase{.B = 1, .T = 256, .H = 8, .K = 2, .D = 64},
                             AttentionCase{.B = 2, .T = 1000, .H = 4, .K = 4, .D = 128},
                             AttentionCase{.B = 3, .T = 512, .H = 2, .K = 1, .D = 72});
  const Values qkv = bf16_values(a.qkv_count(), 1), out_gradient = bf16_values(a.out_count(), 2);
  Side cpu(std::move(backend::make_cpu_backends({}).front())), gpu(make_device_under_test());
  cuda::Scratch scratch;
  auto attention = cuda::make_cudnn_attention(scratch, is_deterministic);
  INFO((attention ? "" : attention.reason()));
  REQUIRE(attention.ok());
  const cudaStream_t stream = cuda::handle_of(gpu.stream());
  for (const int64_t mean : {0, 4, 100}) {
    a.document_mean = mean;
    INFO(a.describe() << (is_deterministic ? " deterministic" : ""));
    const auto run = [&](Side& side, const auto& forward, const auto& backward) {
      const AttentionTensors t(side, a, qkv, out_gradient);
      forward(t.forward(a));
      backward(t.backward(a));
      return std::vector<Values>{side.download(t.out), side.download(t.qkv_gradient)};
    };
    const std::vector<Values> expected = run(
        cpu, [&](const auto& args) { cpu.ops().attention_forward(args, cpu.stream()); },
        [&](const auto& args) { cpu.ops().attention_backward(args, cpu.stream()); });
    std::vector<Values> first;
    for (int i = 0; i < 3; ++i) {
      const std::vector<Values> found = run(
          gpu, [&](const auto& args) { (*attention)->forward(args, stream); },
          [&](const auto& args) { (*attention)->backward(args, stream); });
      ops_test::require_close(found[0], expected[0], {.relative = 0x1p-7, .of_largest = 4e-3});
      ops_test::require_close(found[1], expected[1], {.of_largest = 1e-2});
      if (i == 0) first = found;
      if (is_deterministic) REQUIRE(found == first);
    }
  }
}
