// Every operation on numbers that are none: nothing outside its tensors is written, it comes to an
// end, and what it makes of NaN is not finite, so that the norm finds it and the step is skipped.
#pragma once

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/quantization.h"
#include "support/catch.h"

namespace ops_test {

using backend::DType;
using backend::Shape;
using backend::Tensor;

// What the floats of an operation are; by element.
struct Poison {
  std::string name;
  std::function<float(int64_t)> at;
};

inline std::vector<Poison> all_poisons() {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kLargest = std::numeric_limits<float>::max();
  const auto usual = [](int64_t i) { return float(i % 7) / 8 - 0.3f; };
  return {
      {"NaN", [](int64_t) { return kNan; }},
      {"negative NaN", [](int64_t) { return std::copysign(kNan, -1.0f); }},
      {"infinity", [](int64_t) { return kInfinity; }},
      {"-infinity", [](int64_t) { return -kInfinity; }},
      {"the largest", [](int64_t) { return kLargest; }},
      {"subnormal", [](int64_t) { return std::numeric_limits<float>::denorm_min(); }},
      {"one NaN in a row", [=](int64_t i) { return i % 16 == 5 ? kNan : usual(i); }},
      {"all kinds",
       [=](int64_t i) {
         const float kinds[] = {kNan, kInfinity, usual(i), -kInfinity, -kLargest, 0, kLargest};
         return kinds[i % 7];
       }},
      {"only NaN and -infinity", [](int64_t i) { return i % 3 == 0 ? kNan : -kInfinity; }},
  };
}

// Makes tensors that hold the poison, each between two guards.
class PoisonedRig {
 public:
  PoisonedRig(backend::Backend backend, Poison poison)
      : backend_(std::move(backend)), poison_(std::move(poison)) {}

  backend::Ops& ops() { return *backend_.ops; }
  backend::Stream& stream() { return backend_.device->compute_stream(); }

  Tensor fp32(const Shape& shape) { return upload<float>(DType::kFloat32, shape, poison_.at); }
  Tensor bf16(const Shape& shape) {
    return upload<uint16_t>(DType::kBfloat16, shape,
                            [&](int64_t i) { return backend::to_bfloat16(poison_.at(i)); });
  }
  // Weights and activations.
  Tensor compute(const Shape& shape) {
    return backend_.device->compute_dtype() == DType::kBfloat16 ? bf16(shape) : fp32(shape);
  }
  Tensor bytes(DType dtype, const Shape& shape) {
    return upload<uint8_t>(dtype, shape, [](int64_t i) { return uint8_t(37 * i + 11); });
  }
  Tensor int32(const std::vector<int32_t>& values) {
    return upload<int32_t>(DType::kInt32, {int64_t(values.size())},
                           [&](int64_t i) { return values[size_t(i)]; });
  }
  Tensor one(float value) {
    return upload<float>(DType::kFloat32, {1}, [=](int64_t) { return value; });
  }

  std::vector<float> download(const Tensor& tensor) {
    const std::vector<std::byte> raw = read(tensor.data, tensor.byte_count());
    std::vector<float> values;
    for (int64_t i = 0; i < tensor.element_count(); ++i) {
      uint16_t half;
      float whole;
      if (tensor.dtype == DType::kBfloat16) {
        std::memcpy(&half, raw.data() + 2 * i, 2);
        values.push_back(backend::from_bfloat16(half));
      } else {
        REQUIRE(tensor.dtype == DType::kFloat32);
        std::memcpy(&whole, raw.data() + 4 * i, 4);
        values.push_back(whole);
      }
    }
    return values;
  }
  void require_guards() {
    for (const auto& buffer : buffers_) {
      const std::vector<std::byte> raw = read(buffer->data(), buffer->byte_count());
      const auto is_guard = [](std::byte byte) { return byte == kGuard; };
      REQUIRE(std::all_of(raw.begin(), raw.begin() + kGuardBytes, is_guard));
      REQUIRE(std::all_of(raw.end() - kGuardBytes, raw.end(), is_guard));
    }
  }

 private:
  static constexpr int64_t kGuardBytes = 1024;
  static constexpr std::byte kGuard{0xa5};

  template <class T, class At>
  Tensor upload(DType dtype, const Shape& shape, const At& at) {
    const int64_t bytes = shape.element_count() * int64_t{sizeof(T)};
    std::vector<std::byte> raw(size_t(bytes + 2 * kGuardBytes), kGuard);
    for (int64_t i = 0; i < shape.element_count(); ++i) {
      const T value = at(i);
      std::memcpy(raw.data() + kGuardBytes + i * int64_t{sizeof(T)}, &value, sizeof(T));
    }
    buffers_.push_back(backend_.device->allocate(int64_t(raw.size()), "test"));
    backend_.device->copy(buffers_.back()->data(), raw.data(), int64_t(raw.size()), stream());
    backend_.device->synchronize(stream());
    return {static_cast<std::byte*>(buffers_.back()->data()) + kGuardBytes, dtype, shape};
  }
  std::vector<std::byte> read(const void* from, int64_t count) {
    std::vector<std::byte> raw(static_cast<size_t>(count));
    backend_.device->copy(raw.data(), from, count, stream());
    backend_.device->synchronize(stream());
    return raw;
  }

  backend::Backend backend_;
  Poison poison_;
  std::vector<std::unique_ptr<backend::Buffer>> buffers_;
};

struct PoisonedOperation {
  std::string name;
  // Returns the tensors that are not finite afterwards if all that came in was NaN.
  std::function<std::vector<Tensor>(PoisonedRig&)> run;
};

inline std::vector<PoisonedOperation> model_operations() {
  constexpr int64_t kRows = 12, kWidth = 40, kHeads = 4, kKvHeads = 2, kHeadSize = 8, kT = 6;
  const std::vector<int32_t> starts = {0, 0, 0, 3, 3, 3, 0, 0, 0, 0, 0, 5};
  const Shape qkv{kRows, (kHeads + 2 * kKvHeads) * kHeadSize}, out{kRows, kHeads * kHeadSize};
  std::vector<PoisonedOperation> all;
  all.push_back({"matmul", [=](PoisonedRig& rig) {
                   const Tensor y = rig.compute({16, 8});
                   rig.ops().matmul({.out = y, .a = rig.compute({16, 8}), .b = rig.compute({8, 8})},
                                    rig.stream());
                   return std::vector{y};
                 }});
  all.push_back({"embedding", [=](PoisonedRig& rig) {
                   const Tensor tokens = rig.int32({0, 2, 1, 2}), y = rig.compute({4, kWidth}),
                                dw = rig.fp32({3, kWidth});
                   rig.ops().embedding_forward(
                       {.out = y, .weight = rig.compute({3, kWidth}), .tokens = tokens},
                       rig.stream());
                   rig.ops().embedding_backward(
                       {.weight_gradient = dw, .out_gradient = y, .tokens = tokens}, rig.stream());
                   return std::vector{y, dw};
                 }});
  all.push_back({"rmsnorm", [=](PoisonedRig& rig) {
                   const Tensor y = rig.compute({kRows, kWidth}),
                                sum = rig.compute({kRows, kWidth}), rstd = rig.fp32({kRows}),
                                weight = rig.compute({kWidth});
                   const Tensor dx = rig.compute({kRows, kWidth}), dw = rig.fp32({kWidth});
                   rig.ops().rmsnorm_forward({.out = y,
                                              .residual_out = sum,
                                              .rstd = rstd,
                                              .in = rig.compute({kRows, kWidth}),
                                              .delta = rig.compute({kRows, kWidth}),
                                              .weight = weight},
                                             rig.stream());
                   rig.ops().rmsnorm_backward({.in_gradient = dx,
                                               .weight_gradient = dw,
                                               .out_gradient = y,
                                               .in = sum,
                                               .weight = weight,
                                               .rstd = rstd},
                                              rig.stream());
                   return std::vector{y, sum, rstd, dx, dw};
                 }});
  all.push_back({"rope", [=](PoisonedRig& rig) {
                   const Tensor x = rig.compute(qkv);
                   rig.ops().rope({.qkv = x,
                                   .table = rig.fp32({kT, kHeadSize}),
                                   .sequence_length = kT,
                                   .heads = kHeads,
                                   .kv_heads = kKvHeads,
                                   .head_size = kHeadSize},
                                  rig.stream());
                   return std::vector{x};
                 }});
  all.push_back({"attention", [=](PoisonedRig& rig) {
                   const Tensor x = rig.compute(qkv), y = rig.compute(out), dx = rig.compute(qkv),
                                lse = rig.fp32({2, kHeads, kT}), documents = rig.int32(starts);
                   rig.ops().attention_forward({.out = y,
                                                .lse = lse,
                                                .qkv = x,
                                                .document_start = documents,
                                                .document_count = 4,
                                                .sequence_length = kT,
                                                .heads = kHeads,
                                                .kv_heads = kKvHeads,
                                                .head_size = kHeadSize},
                                               rig.stream());
                   rig.ops().attention_backward({.qkv_gradient = dx,
                                                 .out_gradient = rig.compute(out),
                                                 .out = y,
                                                 .lse = lse,
                                                 .qkv = x,
                                                 .document_start = documents,
                                                 .document_count = 4,
                                                 .sequence_length = kT,
                                                 .heads = kHeads,
                                                 .kv_heads = kKvHeads,
                                                 .head_size = kHeadSize},
                                                rig.stream());
                   return std::vector{y, lse, dx};
                 }});
  all.push_back({"swiglu", [=](PoisonedRig& rig) {
                   const Tensor x = rig.compute({kRows, 2 * kWidth}),
                                y = rig.compute({kRows, kWidth}),
                                again = rig.compute({kRows, kWidth});
                   rig.ops().swiglu_forward({.out = y, .gate_up = x}, rig.stream());
                   rig.ops().swiglu_backward(
                       {.gate_up = x, .out = again, .out_gradient = rig.compute({kRows, kWidth})},
                       rig.stream());
                   return std::vector{x, y, again};
                 }});
  for (const int64_t vocabulary : {1, 19, 45, 3000}) {
    all.push_back({"cross_entropy of " + std::to_string(vocabulary), [=](PoisonedRig& rig) {
                     const Tensor logits = rig.compute({2, vocabulary}), loss = rig.fp32({2}),
                                  z_loss = rig.fp32({2});
                     for (const bool compute_gradient : {false, true}) {
                       rig.ops().cross_entropy({.loss = loss,
                                                .z_loss = z_loss,
                                                .logits = logits,
                                                .targets = rig.int32({0, int32_t(vocabulary) - 1}),
                                                .z_weight = 1e-4f,
                                                .compute_gradient = compute_gradient},
                                               rig.stream());
                     }
                     return std::vector{logits, loss};
                   }});
  }
  return all;
}

inline std::vector<PoisonedOperation> update_operations() {
  constexpr int64_t kCount = 1300;
  std::vector<PoisonedOperation> all;
  all.push_back({"sums and clipping", [=](PoisonedRig& rig) {
                   const Tensor sum = rig.fp32({1}), squares = rig.fp32({1}), scale = rig.fp32({1});
                   rig.ops().sum({.out = sum, .in = rig.fp32({kCount})}, rig.stream());
                   rig.ops().sum_of_squares({.out = squares, .in = rig.fp32({kCount})},
                                            rig.stream());
                   rig.ops().clip_scale({.scale = scale, .sums_of_squares = squares}, rig.stream());
                   return std::vector{sum, squares, scale};
                 }});
  all.push_back({"adamw", [=](PoisonedRig& rig) {
                   const Tensor p = rig.fp32({kCount}), m = rig.fp32({kCount}),
                                v = rig.fp32({kCount}), copy = rig.compute({kCount});
                   rig.ops().adamw({.parameter = p,
                                    .gradient = rig.fp32({kCount}),
                                    .m = m,
                                    .v = v,
                                    .copy = copy,
                                    .gradient_scale = rig.one(1),
                                    .learning_rate = 0.1f},
                                   rig.stream());
                   return std::vector{p, m, v, copy};
                 }});
  all.push_back({"adamw with 8-bit moments", [=](PoisonedRig& rig) {
                   const Tensor p = rig.bf16({kCount}), m_scale = rig.fp32({6}),
                                v_scale = rig.fp32({6});
                   rig.ops().adamw({.parameter = p,
                                    .gradient = rig.fp32({kCount}),
                                    .m = rig.bytes(DType::kUint8, {kCount}),
                                    .v = rig.bytes(DType::kUint8, {kCount}),
                                    .gradient_scale = rig.one(1),
                                    .m_scale = m_scale,
                                    .v_scale = v_scale,
                                    .learning_rate = 0.1f},
                                   rig.stream());
                   return std::vector{p, m_scale, v_scale};
                 }});
  all.push_back({"sgd", [=](PoisonedRig& rig) {
                   const Tensor p = rig.fp32({kCount});
                   rig.ops().sgd({.parameter = p,
                                  .gradient = rig.fp32({kCount}),
                                  .gradient_scale = rig.one(1),
                                  .learning_rate = 0.1f},
                                 rig.stream());
                   return std::vector{p};
                 }});
  all.push_back(
      {"encode_int8 and decode_int8", [=](PoisonedRig& rig) {
         const Tensor codes = rig.bytes(DType::kInt8, {kCount}), y = rig.fp32({kCount});
         rig.ops().encode_int8({.scales = rig.fp32({3}),
                                .codes = codes,
                                .is_finite = rig.int32({1}),
                                .in = rig.compute({kCount}),
                                .reference = rig.fp32({kCount})},
                               rig.stream());
         rig.ops().decode_int8(
             {.out = y, .scales = rig.fp32({3}), .codes = rig.bytes(DType::kInt8, {kCount})},
             rig.stream());
         return std::vector{y};
       }});
  all.push_back(
      {"encode_int4 and decode_int4", [=](PoisonedRig& rig) {
         const int64_t blocks = (kCount + 127) / 128, pairs = (kCount + 1) / 2;
         const Tensor y = rig.fp32({kCount});
         rig.ops().encode_int4({.scales = rig.bf16({blocks}),
                                .codes = rig.bytes(DType::kUint8, {pairs}),
                                .is_finite = rig.int32({1}),
                                .in = rig.compute({kCount}),
                                .reference = rig.fp32({kCount})},
                               rig.stream());
         rig.ops().decode_int4(
             {.out = y, .scales = rig.bf16({blocks}), .codes = rig.bytes(DType::kUint8, {pairs})},
             rig.stream());
         return std::vector{y};
       }});
  all.push_back({"add, sum_tensors and cast", [=](PoisonedRig& rig) {
                   const Tensor y = rig.compute({kCount}), sum = rig.fp32({kCount}),
                                half = rig.bf16({kCount}), whole = rig.fp32({kCount});
                   rig.ops().add({.out = y, .in = rig.compute({kCount})}, rig.stream());
                   const Tensor in[] = {rig.fp32({kCount}), rig.fp32({kCount})};
                   rig.ops().sum_tensors({.out = sum, .in = in}, rig.stream());
                   rig.ops().cast({.out = half, .in = sum}, rig.stream());
                   rig.ops().cast({.out = whole, .in = half}, rig.stream());
                   return std::vector{y, sum, half, whole};
                 }});
  return all;
}

// The largest logits are usual ones, but the target's overflowed: the loss is infinite, and a
// gradient without a NaN would be a step.
inline void require_no_gradient_of_infinite_loss(backend::Backend backend) {
  PoisonedRig rig(std::move(backend), {"one -infinity", [](int64_t i) {
                                         return i == 45 + 7 ? -INFINITY : float(i % 5);
                                       }});
  const Tensor logits = rig.compute({2, 45});
  rig.ops().cross_entropy({.loss = rig.fp32({2}),
                           .z_loss = rig.fp32({2}),
                           .logits = logits,
                           .targets = rig.int32({7, 7})},
                          rig.stream());
  const std::vector<float> gradient = rig.download(logits);
  for (size_t i = 0; i < gradient.size(); ++i) REQUIRE(std::isnan(gradient[i]) == (i >= 45));
}

inline void require_poison_is_harmless(const std::function<backend::Backend()>& make_backend) {
  std::vector<PoisonedOperation> operations = model_operations();
  for (PoisonedOperation& operation : update_operations())
    operations.push_back(std::move(operation));
  for (const Poison& poison : all_poisons()) {
    for (const PoisonedOperation& operation : operations) {
      INFO(operation.name << " of " << poison.name);
      PoisonedRig rig(make_backend(), poison);
      const std::vector<Tensor> results = operation.run(rig);
      rig.require_guards();
      if (!std::isnan(poison.at(0)) || !std::isnan(poison.at(1))) continue;
      for (size_t i = 0; i < results.size(); ++i) {
        INFO("result " << i);
        for (const float value : rig.download(results[i])) REQUIRE_FALSE(std::isfinite(value));
      }
    }
  }
}

}  // namespace ops_test
