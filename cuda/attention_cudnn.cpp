// Attention by cuDNN's fused kernels. cuDNN knows no documents; there are three ways to say them:
//
//   dense    one document per row: a causal attention of B rows.
//   packed   every document is an entry of a batch, of its own length, at a place that a table on
//            the device gives. Work is only done inside documents. The number of entries and the
//            length of the longest are part of the graph, whose blocks of threads cover entries *
//            length positions. So there are graphs for 32, 64, 128, ... entries, of which the last
//            ones may be empty, of T, T/2, T/4 and T/8 positions. lse is then (N, H).
//   masked   as dense, with a mask of 0 and a large negative number that is added to the scores:
//   the
//            work of dense, for what cannot be packed. That is, packed gradients on an A100, and
//            deterministic ones on an H100, where cuDNN wants entries * heads * T^2 * 2 bytes.
//
// Query, key and value are read from the interleaved qkv by strides, and gradients are written in
// the same way, but for packed keys and values: cuDNN makes a copy of their gradients for each
// query head with H/K times their stride, which would be 1.6 GB for the interleaved ones of 8192
// tokens with 32 heads of 128. They get dense memory, and are copied.
//
// What a call needs is known after its graphs are built. So the first call of a shape builds those
// of dense and of packed for the most entries and positions, and takes scratch memory for all;
// later ones, in steady state, need no more. They build a smaller packed one when its entries and
// length are first met.
#include "cuda/attention_cudnn.h"

#include <algorithm>
#include <bit>
#include <map>
#include <optional>

#include "base/log.h"
#include "cuda/documents.h"

namespace cuda {

using backend::AttentionBackwardArgs;
using backend::AttentionForwardArgs;
using backend::DType;
using backend::Tensor;
using Number = uint16_t;  // A bf16.
using Pass = SdpaShape::Pass;

namespace {

constexpr int64_t kAlignment = 256;
constexpr int64_t kEntriesMin = 32, kEntriesMax = 4096;
constexpr int kHalvings = 3;            // Of the length of packed entries.
constexpr int64_t kPackedLength = 128;  // A block of threads has as many positions: no less work.

enum class Method { kDense, kPacked, kMasked };

// What calls have in common that use the same graphs.
struct CallShape {
  int64_t B = 0, T = 0, H = 0, K = 0, D = 0;
  bool is_training = false;

  auto operator<=>(const CallShape&) const = default;
  int64_t tokens() const { return B * T; }
  int64_t group() const { return H / K; }
  int64_t qkv_stride() const { return (H + 2 * K) * D; }
  int64_t out_stride() const { return H * D; }
  int64_t kv_stride() const { return K * D; }
  int64_t mask_stride() const { return base::round_up(T, 8); }
  int64_t mask_row_bytes() const { return T * mask_stride() * int64_t(sizeof(Number)); }
};

// What the host knows of a call's documents.
struct Documents {
  int64_t count = 0;
  int64_t longest = 0;  // Positions, at most.
};

// The batch of a packed graph.
struct Packing {
  int64_t entries = 0, length = 0;

  auto operator<=>(const Packing&) const = default;
};

struct CallTensors {
  const Number* qkv = nullptr;
  Number* out = nullptr;
  float* lse = nullptr;
  const Number* out_gradient = nullptr;
  Number* qkv_gradient = nullptr;
  const int32_t* document_start = nullptr;
};

// A part of a call that one run of a graph does.
struct Piece {
  int64_t rows = 0, kv_heads = 0;
  int64_t size() const { return rows * kv_heads; }
};

// Where things lie in the scratch memory. The workspace is at 0.
struct ScratchLayout {
  int64_t table = 0, mask = 0, key_gradient = 0, value_gradient = 0, byte_count = 0;

  // Room for `bytes` more, and where it is.
  int64_t add(int64_t bytes) {
    const int64_t at = byte_count;
    byte_count += base::round_up(bytes, kAlignment);
    return at;
  }
};

// One direction of a call: its graph, which is run once for every piece.
struct Plan {
  std::unique_ptr<Sdpa> graph;
  Method method = Method::kDense;
  SdpaShape shape;
  Piece piece;
  ScratchLayout scratch;
};

struct PlanPair {
  Plan forward;
  Plan backward;  // Of training.

  int64_t scratch_bytes() const {
    return std::max(forward.scratch.byte_count, backward.scratch.byte_count);
  }
};

// All plans for calls of one shape. What is absent is left to plain attention, for the reason.
struct PlanSet {
  std::optional<PlanPair> dense, masked;
  // Null: there is no such one, or it needs too much. That of `largest` serves all.
  std::map<Packing, std::optional<PlanPair>> packed;
  Packing largest;  // Of `packed`; 0 entries if nothing can be packed.
  std::string dense_reason, packed_reason;
  int64_t scratch_bytes = 0;
  bool has_warned = false;
};

SdpaShape graph_shape(const CallShape& call, Method method, Pass pass, const Piece& piece,
                      const Packing& packing, bool is_deterministic) {
  SdpaShape shape{.pass = pass,
                  .entries = piece.rows,
                  .length = call.T,
                  .heads = piece.kv_heads * call.group(),
                  .kv_heads = piece.kv_heads,
                  .head_size = call.D,
                  .qkv_stride = call.qkv_stride(),
                  .out_stride = call.out_stride(),
                  .kv_gradient_stride = call.qkv_stride(),
                  .is_deterministic = is_deterministic};
  if (method == Method::kMasked) shape.mask_stride = call.mask_stride();
  if (method == Method::kPacked) {
    shape.entries = packing.entries;
    shape.length = packing.length;
    shape.packed_positions = call.tokens();
    shape.lse_stride = call.H;
    shape.kv_gradient_stride = call.kv_stride();
  }
  return shape;
}

ScratchLayout scratch_layout(const CallShape& call, const Plan& plan) {
  ScratchLayout layout;
  layout.add(plan.graph->workspace_bytes());
  if (plan.method == Method::kPacked) {
    layout.table = layout.add(DocumentTable::byte_count(plan.shape.entries));
    if (plan.shape.pass == Pass::kBackward) {
      const int64_t bytes = call.tokens() * call.kv_stride() * int64_t(sizeof(Number));
      layout.key_gradient = layout.add(bytes);
      layout.value_gradient = layout.add(bytes);
    }
  }
  if (plan.method == Method::kMasked)
    layout.mask = layout.add(plan.piece.rows * call.mask_row_bytes());
  return layout;
}

// The next smaller piece that divides the call; nothing if there is none. Each piece's lse has to
// begin at a 16-byte address and to be dense, so only single rows are cut by heads.
std::optional<Piece> cut(const CallShape& call, const Piece& piece) {
  if (piece.rows > 1 && call.T * call.H % 4 == 0)
    return Piece{piece.rows % 2 == 0 ? piece.rows / 2 : 1, piece.kv_heads};
  if (piece.rows == 1 && piece.kv_heads > 1 && call.T * call.group() % 4 == 0)
    return Piece{1, piece.kv_heads % 2 == 0 ? piece.kv_heads / 2 : 1};
  return std::nullopt;
}

// The largest one that should fit, given what `piece` needs: bytes are about proportional to size.
std::optional<Piece> cut_to(int64_t bytes_max, const CallShape& call, const Piece& piece,
                            int64_t bytes) {
  std::optional<Piece> result = cut(call, piece);
  while (result && bytes / piece.size() * result->size() > bytes_max && cut(call, *result)) {
    result = cut(call, *result);
  }
  return result;
}

// A whole call, or as many rows as may have their masks at the same time.
Piece first_piece(const CallShape& call, Method method, int64_t mask_bytes_max) {
  Piece piece{call.B, call.K};
  while (method == Method::kMasked && piece.rows * call.mask_row_bytes() > mask_bytes_max) {
    const std::optional<Piece> smaller = cut(call, piece);
    if (!smaller || smaller->kv_heads < call.K) break;
    piece = *smaller;
  }
  return piece;
}

int64_t entries_for(int64_t document_count) {
  return std::max(kEntriesMin, int64_t(std::bit_ceil(uint64_t(document_count))));
}

// T, or the least of T/2, T/4, T/8 that has room for the longest document.
int64_t length_for(int64_t T, int64_t longest_document) {
  int64_t length = T;
  for (int i = 0; i < kHalvings; ++i) {
    const int64_t half = (length + 1) / 2;
    if (half < std::max(longest_document, kPackedLength)) break;
    length = half;
  }
  return length;
}

// The part of a call that begins at a row and a key/value head.
SdpaBuffers buffers_at(const CallShape& call, const CallTensors& t, int64_t row, int64_t kv_head) {
  const int64_t query = row * call.T * call.qkv_stride() + kv_head * call.group() * call.D;
  const int64_t key = row * call.T * call.qkv_stride() + (call.H + kv_head) * call.D;
  const int64_t value = key + call.kv_stride();
  const int64_t out = row * call.T * call.out_stride() + kv_head * call.group() * call.D;
  SdpaBuffers buffers{
      .query = t.qkv + query, .key = t.qkv + key, .value = t.qkv + value, .out = t.out + out};
  if (t.lse != nullptr) buffers.lse = t.lse + (row * call.H + kv_head * call.group()) * call.T;
  if (t.qkv_gradient != nullptr) {
    buffers.out_gradient = t.out_gradient + out;
    buffers.query_gradient = t.qkv_gradient + query;
    buffers.key_gradient = t.qkv_gradient + key;
    buffers.value_gradient = t.qkv_gradient + value;
  }
  return buffers;
}

Number* numbers(const Tensor& tensor) {
  CHECK(tensor.dtype == DType::kBfloat16);
  CHECK(reinterpret_cast<uintptr_t>(tensor.data) % 16 == 0, "cuDNN reads 16 bytes at a time");
  return static_cast<Number*>(tensor.data);
}

template <class Args>
CallShape check_shapes(const Args& args, bool is_training) {
  const int64_t T = args.sequence_length, tokens = args.document_start.element_count();
  const CallShape call{.B = tokens / T,
                       .T = T,
                       .H = args.heads,
                       .K = args.kv_heads,
                       .D = args.head_size,
                       .is_training = is_training};
  CHECK(call.K > 0 && call.H % call.K == 0 && tokens == call.tokens());
  CHECK(args.document_count >= call.B && args.document_count <= tokens, "{} documents in {} rows",
        args.document_count, call.B);
  CHECK(args.longest_document >= 0 && args.longest_document <= T);
  CHECK(args.longest_document == 0 || args.longest_document * args.document_count >= tokens,
        "{} documents of at most {} positions in {} rows", args.document_count,
        args.longest_document, call.B);
  CHECK(args.qkv.element_count() == tokens * call.qkv_stride());
  CHECK(args.out.element_count() == tokens * call.out_stride());
  CHECK(!args.lse || args.lse.element_count() == tokens * call.H);
  return call;
}

template <class Args>
Documents documents_of(const Args& args) {
  return {.count = args.document_count,
          .longest = args.longest_document > 0 ? args.longest_document : args.sequence_length};
}

class GraphAttention final : public Attention {
 public:
  GraphAttention(std::unique_ptr<SdpaBuilder> builder, Scratch& scratch,
                 const GraphAttentionOptions& options)
      : builder_(std::move(builder)),
        scratch_(scratch),
        options_(options),
        plain_(make_plain_attention(scratch)) {}

  void forward(const AttentionForwardArgs& args, cudaStream_t stream) override {
    const CallShape call = check_shapes(args, bool(args.lse));
    const PlanPair* plans = plans_for(call, documents_of(args));
    if (plans == nullptr) return plain_->forward(args, stream);
    run(plans->forward, call,
        {.qkv = numbers(args.qkv),
         .out = numbers(args.out),
         .lse = args.lse ? args.lse.as<float>() : nullptr,
         .document_start = args.document_start.as<int32_t>()},
        stream);
  }

  void backward(const AttentionBackwardArgs& args, cudaStream_t stream) override {
    const CallShape call = check_shapes(args, true);
    CHECK(args.qkv_gradient.element_count() == args.qkv.element_count());
    CHECK(args.lse && args.out_gradient.element_count() == args.out.element_count());
    const PlanPair* plans = plans_for(call, documents_of(args));
    if (plans == nullptr) return plain_->backward(args, stream);
    run(plans->backward, call,
        {.qkv = numbers(args.qkv),
         .out = numbers(args.out),
         .lse = args.lse.as<float>(),
         .out_gradient = numbers(args.out_gradient),
         .qkv_gradient = numbers(args.qkv_gradient),
         .document_start = args.document_start.as<int32_t>()},
        stream);
  }

 private:
  const PlanPair* plans_for(const CallShape& call, const Documents& documents);
  const PlanPair* packed_plans(PlanSet& set, const CallShape& call, const Documents& documents);
  PlanSet make_plans(const CallShape& call);
  base::Result<PlanPair> build_pair(const CallShape& call, Method method, const Packing& packing);
  base::Result<Plan> build(const CallShape& call, Method method, Pass pass, const Packing& packing);

  void run(const Plan& plan, const CallShape& call, const CallTensors& t, cudaStream_t stream);
  void run_packed(const Plan& plan, const CallShape& call, const CallTensors& t, char* scratch,
                  cudaStream_t stream);
  void run_pieces(const Plan& plan, const CallShape& call, const CallTensors& t, char* scratch,
                  cudaStream_t stream);

  const std::unique_ptr<SdpaBuilder> builder_;  // Outlives the graphs.
  Scratch& scratch_;
  const GraphAttentionOptions options_;
  const std::unique_ptr<Attention> plain_;
  std::map<CallShape, PlanSet> plans_;
};

// Null: plain attention. Forward and backward get the same answer, as each reads what the other
// wrote.
const PlanPair* GraphAttention::plans_for(const CallShape& call, const Documents& documents) {
  auto found = plans_.find(call);
  if (found == plans_.end()) {
    found = plans_.emplace(call, make_plans(call)).first;
    scratch_.at_least(found->second.scratch_bytes);
  }
  PlanSet& set = found->second;
  const bool is_dense = documents.count == call.B;
  if (is_dense && set.dense) return &*set.dense;
  if (!is_dense && set.masked) return &*set.masked;
  if (!is_dense && documents.count <= set.largest.entries) {
    return packed_plans(set, call, documents);
  }
  if (!set.has_warned) {
    base::log_warning("attention of {} heads of {} over {} positions, many times slower: {}",
                      call.H, call.D, call.T, is_dense ? set.dense_reason : set.packed_reason);
    set.has_warned = true;
  }
  return nullptr;
}

const PlanPair* GraphAttention::packed_plans(PlanSet& set, const CallShape& call,
                                             const Documents& documents) {
  const Packing packing{.entries = std::min(entries_for(documents.count), set.largest.entries),
                        .length = length_for(call.T, documents.longest)};
  auto found = set.packed.find(packing);
  if (found == set.packed.end()) {
    base::Result<PlanPair> pair = build_pair(call, Method::kPacked, packing);
    const bool is_good = pair.ok() && (*pair).scratch_bytes() <= set.scratch_bytes;
    found = set.packed.emplace(packing, std::nullopt).first;
    if (is_good) found->second = std::move(*pair);
  }
  return found->second ? &*found->second : &*set.packed.at(set.largest);
}

PlanSet GraphAttention::make_plans(const CallShape& call) {
  PlanSet set;
  // For plain attention's backward.
  if (call.is_training) set.scratch_bytes = call.tokens() * call.H * int64_t(sizeof(float));
  if (call.D % 8 != 0) {
    set.dense_reason = set.packed_reason = "cuDNN has heads of a multiple of 8 only";
    return set;
  }
  const auto keep = [&](std::optional<PlanPair>& pair, base::Result<PlanPair> built,
                        std::string& reason) {
    if (!built) {
      reason = built.reason();
      return;
    }
    set.scratch_bytes = std::max(set.scratch_bytes, (*built).scratch_bytes());
    pair = std::move(*built);
  };
  keep(set.dense, build_pair(call, Method::kDense, {}), set.dense_reason);
  const Packing largest{.entries = std::min(kEntriesMax, entries_for(call.tokens())),
                        .length = call.T};
  std::optional<PlanPair> packed;
  keep(packed, build_pair(call, Method::kPacked, largest), set.packed_reason);
  if (packed) {
    set.packed.emplace(largest, std::move(packed));
    set.largest = largest;
    set.packed_reason = "there are too many documents";
  } else {
    keep(set.masked, build_pair(call, Method::kMasked, {}), set.packed_reason);
  }
  return set;
}

base::Result<PlanPair> GraphAttention::build_pair(const CallShape& call, Method method,
                                                  const Packing& packing) {
  PlanPair pair;
  base::Result<Plan> forward =
      build(call, method, call.is_training ? Pass::kForward : Pass::kEvaluation, packing);
  if (!forward) return base::Failure{forward.reason()};
  pair.forward = std::move(*forward);
  if (call.is_training) {
    base::Result<Plan> backward = build(call, method, Pass::kBackward, packing);
    if (!backward) return base::Failure{backward.reason()};
    pair.backward = std::move(*backward);
  }
  return pair;
}

base::Result<Plan> GraphAttention::build(const CallShape& call, Method method, Pass pass,
                                         const Packing& packing) {
  const int64_t qkv_bytes = call.tokens() * call.qkv_stride() * int64_t(sizeof(Number));
  // A packed backward keeps fp32 copies of the gradients for all query heads, which is at most 6
  // times qkv. Where cuDNN does not know the number of tokens, it wants `entries` times as much.
  const int64_t bytes_max =
      method == Method::kPacked ? 8 * qkv_bytes + 64 * base::kMiB : options_.workspace_bytes_max;
  std::optional<Piece> piece = first_piece(call, method, options_.mask_bytes_max);
  while (true) {
    Plan plan{.method = method,
              .shape = graph_shape(call, method, pass, *piece, packing, options_.deterministic),
              .piece = *piece};
    base::Result<std::unique_ptr<Sdpa>> graph = builder_->build(plan.shape);
    if (!graph) return base::Failure{graph.reason()};
    plan.graph = std::move(*graph);
    plan.scratch = scratch_layout(call, plan);
    const int64_t bytes = plan.scratch.byte_count;
    if (bytes <= bytes_max) return plan;
    piece = method == Method::kPacked ? std::nullopt : cut_to(bytes_max, call, *piece, bytes);
    if (!piece) {
      return base::Failure{fmt::format("cuDNN wants {} MiB of workspace", bytes / base::kMiB)};
    }
  }
}

void GraphAttention::run(const Plan& plan, const CallShape& call, const CallTensors& t,
                         cudaStream_t stream) {
  auto* const scratch = static_cast<char*>(scratch_.at_least(plans_.at(call).scratch_bytes));
  if (plan.method == Method::kPacked) {
    run_packed(plan, call, t, scratch, stream);
  } else {
    run_pieces(plan, call, t, scratch, stream);
  }
}

void GraphAttention::run_packed(const Plan& plan, const CallShape& call, const CallTensors& t,
                                char* scratch, cudaStream_t stream) {
  const auto table = DocumentTable::in(scratch + plan.scratch.table, plan.shape.entries);
  make_document_table(table,
                      {.document_start = t.document_start,
                       .token_count = call.tokens(),
                       .sequence_length = call.T,
                       .entries = plan.shape.entries,
                       .strides = {call.qkv_stride(), call.out_stride(), call.H, call.kv_stride()}},
                      stream);
  SdpaBuffers buffers = buffers_at(call, t, 0, 0);
  buffers.lengths = table.lengths;
  buffers.qkv_offsets = table.offsets[0];
  buffers.out_offsets = table.offsets[1];
  if (t.lse != nullptr) buffers.lse_offsets = table.offsets[2];
  buffers.workspace = scratch;
  const bool is_backward = t.qkv_gradient != nullptr;
  if (is_backward) {
    buffers.kv_gradient_offsets = table.offsets[3];
    buffers.key_gradient = scratch + plan.scratch.key_gradient;
    buffers.value_gradient = scratch + plan.scratch.value_gradient;
  }
  plan.graph->run(buffers, stream);
  if (is_backward) {
    place_columns(t.qkv_gradient + call.out_stride(), call.qkv_stride(), buffers.key_gradient,
                  buffers.value_gradient, call.tokens(), call.kv_stride(), stream);
  }
}

void GraphAttention::run_pieces(const Plan& plan, const CallShape& call, const CallTensors& t,
                                char* scratch, cudaStream_t stream) {
  for (int64_t row = 0; row < call.B; row += plan.piece.rows) {
    char* const mask = plan.method == Method::kMasked ? scratch + plan.scratch.mask : nullptr;
    if (mask != nullptr) {
      make_document_mask(mask, t.document_start + row * call.T, plan.piece.rows, call.T,
                         call.mask_stride(), stream);
    }
    for (int64_t kv_head = 0; kv_head < call.K; kv_head += plan.piece.kv_heads) {
      SdpaBuffers buffers = buffers_at(call, t, row, kv_head);
      buffers.mask = mask;
      buffers.workspace = scratch;
      plan.graph->run(buffers, stream);
    }
  }
}

}  // namespace

std::unique_ptr<Attention> make_graph_attention(std::unique_ptr<SdpaBuilder> builder,
                                                Scratch& scratch,
                                                const GraphAttentionOptions& options) {
  return std::make_unique<GraphAttention>(std::move(builder), scratch, options);
}

base::Result<std::unique_ptr<Attention>> make_cudnn_attention(Scratch& scratch,
                                                              bool deterministic) {
  base::Result<std::unique_ptr<SdpaBuilder>> builder = load_cudnn();
  if (!builder) return base::Failure{builder.reason()};
  return make_graph_attention(std::move(*builder), scratch, {.deterministic = deterministic});
}

}  // namespace cuda
