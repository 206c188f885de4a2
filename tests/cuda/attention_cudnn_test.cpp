// Attention by graphs, which the emulation interprets: which graphs a call is made of, and that
// their tensors lie where they should.
#include "cuda/attention_cudnn.h"

#include <set>
#include <utility>

#include "cuda/attention_case.h"
#include "cuda/cuda_backend.h"
#include "cuda/device_under_test.h"

using namespace cuda_test;
using cuda::SdpaShape;

namespace {

// Keeps the shape of every run.
class RecordedSdpa final : public cuda::Sdpa {
 public:
  RecordedSdpa(std::unique_ptr<Sdpa> graph, const SdpaShape& shape, std::vector<SdpaShape>& runs)
      : graph_(std::move(graph)), shape_(shape), runs_(runs) {}
  int64_t workspace_bytes() const override { return graph_->workspace_bytes(); }
  void run(const cuda::SdpaBuffers& buffers, cudaStream_t stream) override {
    runs_.push_back(shape_);
    graph_->run(buffers, stream);
  }

 private:
  const std::unique_ptr<Sdpa> graph_;
  const SdpaShape shape_;
  std::vector<SdpaShape>& runs_;
};

class Recorder final : public cuda::SdpaBuilder {
 public:
  explicit Recorder(std::vector<SdpaShape>& runs) : runs_(runs) {
    auto builder = cuda::load_cudnn();
    INFO((builder ? "" : builder.reason()));
    REQUIRE(builder.ok());
    builder_ = std::move(*builder);
  }
  base::Result<std::unique_ptr<cuda::Sdpa>> build(const SdpaShape& shape) override {
    auto graph = builder_->build(shape);
    if (!graph) return base::Failure{graph.reason()};
    return std::unique_ptr<cuda::Sdpa>(
        std::make_unique<RecordedSdpa>(std::move(*graph), shape, runs_));
  }

 private:
  std::vector<SdpaShape>& runs_;
  std::unique_ptr<cuda::SdpaBuilder> builder_;
};

struct GraphRuns {
  std::vector<SdpaShape> forward, backward;
  int64_t scratch_bytes = 0;
};

std::vector<Values> on_cpu(const AttentionCase& a, const Values& qkv, const Values& out_gradient) {
  Side cpu(std::move(backend::make_cpu_backends({.threads_per_rank = 2}).front()));
  const AttentionTensors t(cpu, a, qkv, out_gradient);
  cpu.ops().attention_forward(t.forward(a), cpu.stream());
  cpu.ops().attention_backward(t.backward(a), cpu.stream());
  return {cpu.download(t.out), cpu.download(t.qkv_gradient)};
}

// Compares forward and backward with the CPU's, and tells how they were done.
GraphRuns require_graph_attention(const AttentionCase& a,
                                  const cuda::GraphAttentionOptions& options = {}) {
  INFO(a.describe() << (options.deterministic ? " deterministic" : ""));
  const Values qkv = bf16_values(a.qkv_count(), 1), out_gradient = bf16_values(a.out_count(), 2);
  Side side(make_device_under_test());
  const AttentionTensors t(side, a, qkv, out_gradient);
  std::vector<SdpaShape> record;
  cuda::Scratch scratch;
  const auto attention =
      cuda::make_graph_attention(std::make_unique<Recorder>(record), scratch, options);
  GraphRuns runs;
  attention->forward(t.forward(a), cuda::handle_of(side.stream()));
  runs.forward = std::exchange(record, {});
  attention->backward(t.backward(a), cuda::handle_of(side.stream()));
  runs.backward = std::exchange(record, {});
  runs.scratch_bytes = scratch.byte_count();

  const std::vector<Values> expected = on_cpu(a, qkv, out_gradient);
  ops_test::require_close(side.download(t.out), expected[0],
                          {.relative = kBf16Rounding, .of_largest = 1e-5});
  // The backward starts from an output that was rounded to bf16, which the CPU's was not.
  ops_test::require_close(side.download(t.qkv_gradient), expected[1],
                          {.relative = kBf16Rounding, .of_largest = 3e-3});
  return runs;
}

// What the interpreter wants as workspace of a deterministic backward: for each head of a row.
constexpr int64_t bytes_per_head(int64_t T) {
  return 2048 * T * T;
}

bool is_dense(const SdpaShape& shape) {
  return !shape.is_packed() && shape.mask_stride == 0;
}

}  // namespace

TEST_CASE("graph attention of one document per row is one run over all rows") {
  const GraphRuns runs = require_graph_attention({.B = 3, .T = 24, .H = 4, .K = 2, .D = 16});
  REQUIRE(runs.forward.size() == 1);
  REQUIRE(runs.backward.size() == 1);
  REQUIRE(is_dense(runs.forward[0]));
  REQUIRE(runs.backward[0].entries == 3);
}

TEST_CASE("graph attention packs documents") {
  const AttentionCase few{.B = 2, .T = 40, .H = 4, .K = 2, .D = 16, .document_mean = 12};
  GraphRuns runs = require_graph_attention(few);
  REQUIRE(runs.forward.size() == 1);
  REQUIRE(runs.backward.size() == 1);
  REQUIRE(runs.backward[0].packed_positions == 80);
  REQUIRE(runs.backward[0].entries == 32);

  const AttentionCase many{.B = 2, .T = 40, .H = 2, .K = 2, .D = 8, .document_mean = 1};
  runs = require_graph_attention(many);
  REQUIRE(many.document_count() == 80);
  REQUIRE(runs.forward[0].entries == 128);
  REQUIRE(runs.backward[0].entries == 128);
}

TEST_CASE("graph attention packs documents into graphs for the length of the longest") {
  std::set<int64_t> lengths;
  for (const int64_t mean : {2, 60, 150, 800}) {
    const AttentionCase a{.B = 1, .T = 600, .H = 2, .K = 1, .D = 8, .document_mean = mean};
    REQUIRE(a.document_count() > 1);
    const GraphRuns runs = require_graph_attention(a);
    REQUIRE(runs.forward.size() == 1);
    REQUIRE(runs.backward.size() == 1);
    const int64_t length = runs.forward[0].length, longest = a.longest_document();
    INFO("mean " << mean << " longest " << longest);
    // No graph is shorter than what a block of threads does: 75 positions would be.
    REQUIRE(length == (longest > 300 ? 600 : longest > 150 ? 300 : 150));
    REQUIRE(runs.backward[0].length == length);
    REQUIRE(runs.backward[0].packed_positions == 600);
    lengths.insert(length);
  }
  REQUIRE(lengths == std::set<int64_t>{150, 300, 600});
}

TEST_CASE("graph attention of documents whose lengths are not known has graphs for any") {
  const AttentionCase a{.B = 1, .T = 300, .H = 2, .K = 1, .D = 8, .document_mean = 20};
  const Values qkv = bf16_values(a.qkv_count(), 1), out_gradient = bf16_values(a.out_count(), 2);
  Side side(make_device_under_test());
  const AttentionTensors t(side, a, qkv, out_gradient);
  std::vector<SdpaShape> record;
  cuda::Scratch scratch;
  const auto attention =
      cuda::make_graph_attention(std::make_unique<Recorder>(record), scratch, {});
  backend::AttentionForwardArgs args = t.forward(a);
  attention->forward(args, cuda::handle_of(side.stream()));
  args.longest_document = 0;
  attention->forward(args, cuda::handle_of(side.stream()));
  REQUIRE(record[0].length == 150);
  REQUIRE(record[1].length == 300);
}

TEST_CASE("graph attention that has no graph for short documents takes the one for all, for good") {
  // Builds only what has the full length, and counts.
  class Stubborn final : public cuda::SdpaBuilder {
   public:
    Stubborn(std::vector<SdpaShape>& runs, int& builds) : recorder_(runs), builds_(builds) {}
    base::Result<std::unique_ptr<cuda::Sdpa>> build(const SdpaShape& shape) override {
      ++builds_;
      if (shape.length < 300) return base::Failure{"too short"};
      return recorder_.build(shape);
    }

   private:
    Recorder recorder_;
    int& builds_;
  };
  const AttentionCase a{.B = 1, .T = 300, .H = 2, .K = 1, .D = 8, .document_mean = 20};
  Side side(make_device_under_test());
  const AttentionTensors t(side, a, bf16_values(a.qkv_count(), 1), bf16_values(a.out_count(), 2));
  std::vector<SdpaShape> record;
  int builds = 0;
  cuda::Scratch scratch;
  const auto attention =
      cuda::make_graph_attention(std::make_unique<Stubborn>(record, builds), scratch, {});
  attention->forward(t.forward(a), cuda::handle_of(side.stream()));
  REQUIRE(builds == 2 + 2 + 1);  // Dense, packed, and the one that is refused.
  attention->backward(t.backward(a), cuda::handle_of(side.stream()));
  REQUIRE(builds == 5);
  REQUIRE(record.size() == 2);
  REQUIRE(record[1].length == 300);
  REQUIRE(record[1].entries == 512);
}

TEST_CASE("graph attention is cut into pieces that fit the workspace") {
  const AttentionCase a{.B = 2, .T = 40, .H = 12, .K = 6, .D = 8};
  const auto runs_of_backward = [&](int64_t heads) {
    const int64_t bytes_max = heads * bytes_per_head(a.T);
    const GraphRuns runs =
        require_graph_attention(a, {.deterministic = true, .workspace_bytes_max = bytes_max});
    REQUIRE(runs.forward.size() == 1);
    REQUIRE(runs.scratch_bytes <= bytes_max);
    return runs.backward.size();
  };
  REQUIRE(runs_of_backward(24) == 1);
  REQUIRE(runs_of_backward(12) == 2);      // A row each.
  REQUIRE(runs_of_backward(11) == 2 * 2);  // Half of a row's heads.
  REQUIRE(runs_of_backward(2) == 2 * 6);   // What shares a key head.
}

TEST_CASE("graph attention that fits in no piece is done without graphs") {
  const AttentionCase a{.B = 2, .T = 40, .H = 4, .K = 2, .D = 8};
  const GraphRuns runs = require_graph_attention(
      a, {.deterministic = true, .workspace_bytes_max = bytes_per_head(a.T)});
  REQUIRE(runs.forward.empty());
  REQUIRE(runs.backward.empty());
}

TEST_CASE("graph attention masks documents that cannot be packed") {
  for (const int64_t T : {40, 33}) {  // 33 is no multiple of the mask's 16 bytes.
    const AttentionCase a{.B = 2, .T = T, .H = 4, .K = 2, .D = 16, .document_mean = 12};
    const GraphRuns runs = require_graph_attention(
        a, {.deterministic = true, .workspace_bytes_max = 5 * bytes_per_head(T)});
    REQUIRE(runs.forward.size() == 1);
    REQUIRE(runs.forward[0].mask_stride == 40);
    REQUIRE(runs.backward.size() == 2);
    REQUIRE(runs.backward[0].entries == 1);
  }
}

TEST_CASE("graph attention makes the masks of a few rows at a time") {
  const AttentionCase a{.B = 4, .T = 32, .H = 4, .K = 2, .D = 8, .document_mean = 12};
  const auto rows_at_a_time = [&](int64_t mask_bytes_max) {
    const GraphRuns runs =
        require_graph_attention(a, {.deterministic = true,
                                    .workspace_bytes_max = 17 * bytes_per_head(a.T),
                                    .mask_bytes_max = mask_bytes_max});
    REQUIRE(runs.forward[0].heads == a.H);
    REQUIRE(runs.backward[0].heads == a.H);
    return runs.forward[0].entries;
  };
  const int64_t bytes_per_row = a.T * a.T * 2;
  REQUIRE(rows_at_a_time(4 * bytes_per_row) == 4);
  REQUIRE(rows_at_a_time(3 * bytes_per_row) == 2);
  REQUIRE(rows_at_a_time(1) == 1);
}

TEST_CASE("graph attention is not cut where a piece of lse would not be aligned") {
  for (const AttentionCase& a : {AttentionCase{.B = 2, .T = 33, .H = 2, .K = 1, .D = 8},
                                 AttentionCase{.B = 1, .T = 33, .H = 4, .K = 2, .D = 8}}) {
    const GraphRuns runs = require_graph_attention(
        a, {.deterministic = true, .workspace_bytes_max = 3 * bytes_per_head(a.T)});
    REQUIRE(runs.forward.empty());
  }
}

TEST_CASE("graph attention of shapes that have no graph is done without") {
  REQUIRE(require_graph_attention({.B = 1, .T = 20, .H = 2, .K = 1, .D = 20}).forward.empty());
  REQUIRE(require_graph_attention({.B = 3, .T = 1, .H = 2, .K = 1, .D = 8}).forward.empty());
}

TEST_CASE("graph attention of later calls needs no more scratch memory than the first") {
  const int64_t T = 256;
  AttentionCase a{.B = 2, .T = T, .H = 4, .K = 2, .D = 8, .document_mean = 30};
  const Values qkv = bf16_values(a.qkv_count(), 1), out_gradient = bf16_values(a.out_count(), 2);
  Side side(make_device_under_test());
  std::vector<SdpaShape> record;
  cuda::Scratch scratch;
  const auto attention =
      cuda::make_graph_attention(std::make_unique<Recorder>(record), scratch, {});
  for (const int64_t mean : {30, 0, 1, 3}) {
    a.document_mean = mean;
    const AttentionTensors t(side, a, qkv, out_gradient);
    attention->forward(t.forward(a), cuda::handle_of(side.stream()));
    attention->backward(t.backward(a), cuda::handle_of(side.stream()));
    scratch.set_steady(true);  // Now more would be a bug.
  }
  REQUIRE(record.size() == 4 * 2);
}

TEST_CASE("graph attention of evaluation gives the same bits without log-sum-exp") {
  for (const int64_t mean : {0, 10}) {
    const AttentionCase a{.B = 2, .T = 40, .H = 4, .K = 2, .D = 8, .document_mean = mean};
    const Values qkv = bf16_values(a.qkv_count(), 5);
    Side side(make_device_under_test());
    std::vector<SdpaShape> record;
    cuda::Scratch scratch;
    const auto attention =
        cuda::make_graph_attention(std::make_unique<Recorder>(record), scratch, {});
    AttentionTensors t(side, a, qkv, Values(size_t(a.out_count())));
    attention->forward(t.forward(a), cuda::handle_of(side.stream()));
    const Values expected = side.download(t.out);
    t.out = side.compute_out({a.B * a.T, a.H * a.D});
    t.lse = {};
    attention->forward(t.forward(a), cuda::handle_of(side.stream()));
    REQUIRE(side.download(t.out) == expected);
    REQUIRE(record[1].pass == SdpaShape::Pass::kEvaluation);
  }
}
