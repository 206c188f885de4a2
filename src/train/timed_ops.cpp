#include "train/timed_ops.h"

#include <algorithm>
#include <fmt/format.h>

namespace train {
namespace {

using backend::Stream;
using backend::Tensor;

// What one call does: FLOP for products and attention, bytes for the rest.
struct Work {
  std::string name;
  PartOf part_of = PartOf::kBlocks;
  double flop = 0;
  double bytes = 0;
};

double bytes_of(std::initializer_list<const Tensor*> tensors) {
  double bytes = 0;
  for (const Tensor* const tensor : tensors) {
    if (*tensor) bytes += double(tensor->byte_count());
  }
  return bytes;
}

Work work_of(const backend::MatmulArgs& args, int64_t vocabulary) {
  const int64_t m = args.out.shape[0], n = args.out.shape[1], k = args.a.element_count() / m;
  const char* const kind = args.transpose_a                             ? " weight gradient"
                           : args.out.dtype == backend::DType::kFloat32 ? ""
                           : !args.transpose_b                          ? " input gradient"
                                                                        : "";
  const bool is_head = m == vocabulary || n == vocabulary || k == vocabulary;
  return {
      .name = fmt::format("product {}x{}x{}{}", m, n, k, kind),
      .part_of = is_head ? PartOf::kOnce : PartOf::kBlocks,
      .flop = 2.0 * double(m) * double(n) * double(k),
      .bytes = bytes_of({&args.a, &args.b}) + (args.accumulate ? 2 : 1) * bytes_of({&args.out})};
}

// A product with the keys and one with the values: 4 FLOP per query, key and element.
double attention_flop(const auto& args, double mean_keys) {
  return 4.0 * double(args.qkv.shape[0]) * mean_keys * double(args.heads * args.head_size);
}

class EventTimedOps final : public TimedOps {
 public:
  EventTimedOps(std::unique_ptr<backend::Ops> ops, backend::Device& device, int64_t vocabulary)
      : ops_(std::move(ops)), device_(device), vocabulary_(vocabulary) {}

  void start(double mean_keys) override {
    calls_.clear();
    mean_keys_ = mean_keys;
    is_timing_ = true;
  }
  std::vector<TimedPart> stop() override;

  void matmul(const backend::MatmulArgs& a, Stream& s) override {
    timed(work_of(a, vocabulary_), s, [&] { ops_->matmul(a, s); });
  }
  void embedding_forward(const backend::EmbeddingForwardArgs& a, Stream& s) override {
    timed({.name = "embedding", .part_of = PartOf::kOnce, .bytes = 2 * bytes_of({&a.out})}, s,
          [&] { ops_->embedding_forward(a, s); });
  }
  void embedding_backward(const backend::EmbeddingBackwardArgs& a, Stream& s) override {
    timed({.name = "embedding backward",
           .part_of = PartOf::kOnce,
           .bytes = 5 * bytes_of({&a.out_gradient})},
          s, [&] { ops_->embedding_backward(a, s); });
  }
  void rmsnorm_forward(const backend::RmsnormForwardArgs& a, Stream& s) override {
    timed({.name = "norm",
           .part_of = PartOf::kBlocksAndHead,
           .bytes = bytes_of({&a.out, &a.residual_out, &a.in, &a.delta})},
          s, [&] { ops_->rmsnorm_forward(a, s); });
  }
  void rmsnorm_backward(const backend::RmsnormBackwardArgs& a, Stream& s) override {
    timed(
        {.name = "norm backward",
         .part_of = PartOf::kBlocksAndHead,
         .bytes = bytes_of({&a.in_gradient, &a.out, &a.out_gradient, &a.residual_gradient, &a.in})},
        s, [&] { ops_->rmsnorm_backward(a, s); });
  }
  void rope(const backend::RopeArgs& a, Stream& s) override {
    const double rotated =
        double(a.heads + a.kv_heads) / double(a.heads + 2 * a.kv_heads) * bytes_of({&a.qkv});
    timed({.name = "rope", .bytes = 2 * rotated}, s, [&] { ops_->rope(a, s); });
  }
  void attention_forward(const backend::AttentionForwardArgs& a, Stream& s) override {
    timed({.name = "attention",
           .flop = attention_flop(a, mean_keys_),
           .bytes = bytes_of({&a.out, &a.lse, &a.qkv})},
          s, [&] { ops_->attention_forward(a, s); });
  }
  void attention_backward(const backend::AttentionBackwardArgs& a, Stream& s) override {
    timed({.name = "attention backward",
           .flop = 2.5 * attention_flop(a, mean_keys_),
           .bytes = bytes_of({&a.qkv_gradient, &a.out_gradient, &a.out, &a.lse, &a.qkv})},
          s, [&] { ops_->attention_backward(a, s); });
  }
  // No part of a step.
  void cache_append(const backend::CacheAppendArgs& a, Stream& s) override {
    ops_->cache_append(a, s);
  }
  void cache_attention(const backend::CacheAttentionArgs& a, Stream& s) override {
    ops_->cache_attention(a, s);
  }
  void swiglu_forward(const backend::SwigluForwardArgs& a, Stream& s) override {
    timed({.name = "swiglu", .bytes = bytes_of({&a.out, &a.gate_up})}, s,
          [&] { ops_->swiglu_forward(a, s); });
  }
  void swiglu_backward(const backend::SwigluBackwardArgs& a, Stream& s) override {
    timed({.name = "swiglu backward",
           .bytes = bytes_of({&a.gate_up, &a.gate_up, &a.out, &a.out_gradient})},
          s, [&] { ops_->swiglu_backward(a, s); });
  }
  void cross_entropy(const backend::CrossEntropyArgs& a, Stream& s) override {
    timed({.name = "cross-entropy", .part_of = PartOf::kOnce, .bytes = 3 * bytes_of({&a.logits})},
          s, [&] { ops_->cross_entropy(a, s); });
  }
  void sum(const backend::SumArgs& a, Stream& s) override {
    timed({.name = "sum", .part_of = PartOf::kOnce, .bytes = bytes_of({&a.in})}, s,
          [&] { ops_->sum(a, s); });
  }
  void sum_of_squares(const backend::SumOfSquaresArgs& a, Stream& s) override {
    timed({.name = "gradient norm", .part_of = PartOf::kParameters, .bytes = bytes_of({&a.in})}, s,
          [&] { ops_->sum_of_squares(a, s); });
  }
  void clip_scale(const backend::ClipScaleArgs& a, Stream& s) override { ops_->clip_scale(a, s); }
  void adamw(const backend::AdamwArgs& a, Stream& s) override {
    const double gradient = (a.zero_gradient ? 2 : 1) * bytes_of({&a.gradient});
    timed({.name = "adamw",
           .part_of = PartOf::kParameters,
           .bytes = 2 * bytes_of({&a.parameter, &a.m, &a.v, &a.m_scale, &a.v_scale}) + gradient +
                    bytes_of({&a.copy})},
          s, [&] { ops_->adamw(a, s); });
  }
  void sgd(const backend::SgdArgs& a, Stream& s) override {
    timed({.name = "sgd",
           .part_of = PartOf::kParameters,
           .bytes = bytes_of({&a.parameter, &a.parameter, &a.gradient, &a.copy})},
          s, [&] { ops_->sgd(a, s); });
  }
  void encode_int8(const backend::EncodeInt8Args& a, Stream& s) override {
    timed({.name = "encode int8",
           .part_of = PartOf::kParameters,
           .bytes = bytes_of({&a.in, &a.reference, &a.codes})},
          s, [&] { ops_->encode_int8(a, s); });
  }
  void decode_int8(const backend::DecodeInt8Args& a, Stream& s) override {
    timed({.name = "decode int8",
           .part_of = PartOf::kParameters,
           .bytes = bytes_of({&a.out, &a.codes})},
          s, [&] { ops_->decode_int8(a, s); });
  }
  void encode_int4(const backend::EncodeInt4Args& a, Stream& s) override {
    timed({.name = "encode int4",
           .part_of = PartOf::kParameters,
           .bytes = bytes_of({&a.in, &a.reference, &a.codes})},
          s, [&] { ops_->encode_int4(a, s); });
  }
  void decode_int4(const backend::DecodeInt4Args& a, Stream& s) override {
    timed({.name = "decode int4",
           .part_of = PartOf::kParameters,
           .bytes = bytes_of({&a.out, &a.codes})},
          s, [&] { ops_->decode_int4(a, s); });
  }
  void add(const backend::AddArgs& a, Stream& s) override {
    timed(
        {.name = "add", .part_of = PartOf::kParameters, .bytes = bytes_of({&a.out, &a.out, &a.in})},
        s, [&] { ops_->add(a, s); });
  }
  void sum_tensors(const backend::SumTensorsArgs& a, Stream& s) override {
    const double count = double(a.in.size()) + 1;
    timed({.name = "sum over ranks",
           .part_of = PartOf::kParameters,
           .bytes = count * bytes_of({&a.out})},
          s, [&] { ops_->sum_tensors(a, s); });
  }
  void cast(const backend::CastArgs& a, Stream& s) override {
    timed({.name = "cast", .part_of = PartOf::kParameters, .bytes = bytes_of({&a.out, &a.in})}, s,
          [&] { ops_->cast(a, s); });
  }
  void zero(const Tensor& out, Stream& s) override {
    timed({.name = "zero", .part_of = PartOf::kParameters, .bytes = bytes_of({&out})}, s,
          [&] { ops_->zero(out, s); });
  }

 private:
  struct Call {
    Work work;
    std::unique_ptr<backend::Event> begin, end;
  };

  template <class Body>
  void timed(Work work, Stream& stream, const Body& body) {
    if (!is_timing_) return body();
    Call call{.work = std::move(work), .begin = device_.record(stream), .end = nullptr};
    body();
    call.end = device_.record(stream);
    calls_.push_back(std::move(call));
  }

  const std::unique_ptr<backend::Ops> ops_;
  backend::Device& device_;
  const int64_t vocabulary_;
  double mean_keys_ = 0;
  bool is_timing_ = false;
  std::vector<Call> calls_;
};

std::vector<TimedPart> EventTimedOps::stop() {
  is_timing_ = false;
  device_.synchronize(device_.compute_stream());
  std::map<std::string, TimedPart> parts;
  for (const Call& call : calls_) {
    TimedPart& part = parts[call.work.name];
    part.name = call.work.name;
    part.part_of = call.work.part_of;
    ++part.calls;
    part.seconds += device_.seconds_between(*call.begin, *call.end);
    part.flop += call.work.flop;
    part.bytes += call.work.bytes;
  }
  calls_.clear();
  std::vector<TimedPart> sorted;
  for (auto& [name, part] : parts) sorted.push_back(std::move(part));
  std::ranges::stable_sort(sorted, std::greater(), &TimedPart::seconds);
  return sorted;
}

}  // namespace

std::unique_ptr<TimedOps> TimedOps::create(std::unique_ptr<backend::Ops> ops,
                                           backend::Device& device, int64_t vocabulary) {
  return std::make_unique<EventTimedOps>(std::move(ops), device, vocabulary);
}

}  // namespace train
