// Every operation of the model, forward and backward: the contract between the model and a backend.
// `src/cpu/` is the plain version and the oracle.
//
// What the operations do to single numbers where all backends must agree on the bits is in
// backend/quantization.h.
//
// Conventions: gradients of parameters accumulate (+=), gradients of activations overwrite (=);
// exceptions are named at the operation. Gradients of parameters, losses, rstd and lse are fp32;
// weights and activations have the device's compute_dtype(). All operations are asynchronous on
// `stream` and give the same bits for the same inputs on the same device with the same thread
// count. Tensors of one call do not overlap unless it says so.
//
// Shape letters: B rows of the batch, T positions of a row, N = B*T tokens, C model width, H query
// heads, K key/value heads, D head size, F feed-forward width, V vocabulary.
#pragma once

#include <cstdint>
#include <span>

#include "backend/device.h"
#include "backend/tensor.h"

namespace backend {

// out = a' b' (+ out if accumulate), where x' is x or its transpose.
//   out (m, n);  a (m, k), or (k, m) if transpose_a;  b (k, n), or (n, k) if transpose_b.
// Accumulates in fp32. 2*m*n*k FLOP.
struct MatmulArgs {
  Tensor out, a, b;
  bool transpose_a = false;
  bool transpose_b = false;
  bool accumulate = false;
};

// out[i] = weight[tokens[i]].  out (N, C), weight (V, C), tokens (N) int32 in [0, V).
struct EmbeddingForwardArgs {
  Tensor out, weight, tokens;
};
// weight_gradient[tokens[i]] += out_gradient[i], for equal tokens in the order of i.
//   weight_gradient (V, C) fp32, out_gradient (N, C), tokens (N) int32 in [0, V).
struct EmbeddingBackwardArgs {
  Tensor weight_gradient, out_gradient, tokens;
};

// residual_out = in + delta   (delta may be absent, then residual_out may be too),
// out = residual_out * rstd * weight,  rstd = 1 / sqrt(mean(residual_out^2) + epsilon), row by row.
//   in, delta, residual_out, out (N, C);  weight (C);  rstd (N) fp32, may be absent (evaluation).
//   residual_out may be the same memory as in.
struct RmsnormForwardArgs {
  Tensor out, residual_out, rstd, in, delta, weight;
  float epsilon = 1e-5f;
};
// With x the norm's input (residual_out of the forward) and dy = out_gradient:
//   in_gradient = residual_gradient + rstd * (dy*w - x * rstd^2 * mean(dy*w*x)),
//   weight_gradient += sum over rows of dy * x * rstd.
// residual_gradient absent counts as 0; it may be the same memory as in_gradient.
// If `out` is present, the forward's output is made again there (for a weight gradient that needs
// it).
struct RmsnormBackwardArgs {
  Tensor in_gradient, weight_gradient, out, out_gradient, residual_gradient, in, weight, rstd;
};

// Rotates the query and key parts of qkv in place, Hugging Face half-rotation: for j < D/2, with
// angle a = position * base^(-2j/D),
//   x[j] = x[j] cos a - x[j+D/2] sin a,   x[j+D/2] = x[j+D/2] cos a + x[j] sin a.
// `inverse` rotates by -a (the backward). Row n has position n mod T.
//   qkv (N, (H+2K)*D) laid out as H query heads, K key heads, K value heads.
//   table (>=T, D) fp32: per position D/2 cosines, then D/2 sines.
struct RopeArgs {
  Tensor qkv, table;
  int64_t sequence_length = 0;  // T
  int64_t heads = 0, kv_heads = 0, head_size = 0;
  bool inverse = false;
};

// Causal grouped-query attention inside documents. Position i of a row attends to the j with
// document_start[i] <= j <= i; query head h uses key/value head h / (H/K):
//   out = softmax(q k^T / sqrt(D)) v.
//   qkv (N, (H+2K)*D) as above, out (N, H*D).
//   lse (B, H, T) fp32 = log sum exp of the scaled scores; may be absent (evaluation). Backends may
//   order its elements otherwise: only their own backward reads it.
//   document_start (N) int32: the row-relative position, 0 to i, at which i's document begins.
//   document_count: how many documents begin in all rows together, B to N. The host knows it, and
//   kernels are chosen by it.
//   longest_document: no document has more positions than this, 1 to T; 0: nothing is known. The
//   host knows it as well; kernels for shorter documents do less.
struct AttentionForwardArgs {
  Tensor out, lse, qkv, document_start;
  int64_t document_count = 0, longest_document = 0;
  int64_t sequence_length = 0;
  int64_t heads = 0, kv_heads = 0, head_size = 0;
};
// The same with `out` and `lse` of the forward. qkv_gradient (N, (H+2K)*D) is overwritten.
struct AttentionBackwardArgs {
  Tensor qkv_gradient, out_gradient, out, lse, qkv, document_start;
  int64_t document_count = 0, longest_document = 0;
  int64_t sequence_length = 0;
  int64_t heads = 0, kv_heads = 0, head_size = 0;
};

// Attention of sequences that go on, whose keys and values are kept. A batch has rows of any of
// them: row n is the token at positions[n] of the sequence sequences[n]. Where sequences[n] is -1
// the row fills up the batch and counts for nothing.
//   keys, values (S, K, T, D) in the compute dtype: S sequences of at most T positions.
//   sequences, positions (N) int32, in [-1, S) and [0, T).
//   qkv (N, (H+2K)*D) as above.
struct KeyValueCache {
  Tensor keys, values;
  Tensor sequences, positions;
};
// Rotates queries and keys of qkv in place, each row by its own position (see RopeArgs; table (>=T,
// D)), and keeps its keys and values in the cache. No two rows have the same place.
struct CacheAppendArgs {
  KeyValueCache cache;
  Tensor qkv, table;
  int64_t heads = 0, kv_heads = 0, head_size = 0;
};
// out = softmax(q k^T / sqrt(D)) v over the positions 0 to positions[n] of the row's sequence,
// which are in the cache: also those of this batch.  out (N, H*D); undefined, but not read by
// others, in rows that count for nothing.
struct CacheAttentionArgs {
  KeyValueCache cache;
  Tensor out, qkv;
  int64_t heads = 0, kv_heads = 0, head_size = 0;
};

// out = silu(gate) * up,  silu(x) = x / (1 + exp(-x)).
//   gate_up (N, 2F): F gates, then F ups, per row.  out (N, F).
struct SwigluForwardArgs {
  Tensor out, gate_up;
};
// gate_up is overwritten by its gradient. If `out` is present, the forward's output is made again
// there in the same pass.
struct SwigluBackwardArgs {
  Tensor gate_up, out, out_gradient;
};

// Softmax cross-entropy of a chunk of rows with the max-z loss of Baichuan 2 (w * max_logit^2):
//   loss[i] = lse(logits[i]) - logits[i][targets[i]],   z_loss[i] = z_weight * max(logits[i])^2.
//   logits (M, V);  targets (M) int32 in [-1, V);  loss, z_loss (M) fp32.
// A target of -1 is not counted: both losses and the gradient are 0.
// If `compute_gradient`, logits are overwritten by gradient_scale * d(loss + z_loss) / d logits,
// where the gradient of the maximum goes to the first largest logit. Otherwise they are left. Where
// the loss is not finite, the row's gradient is NaN.
struct CrossEntropyArgs {
  Tensor loss, z_loss, logits, targets;
  float z_weight = 0;
  float gradient_scale = 1;
  bool compute_gradient = true;
};

// out[0] = sum of in.  out (1) fp32, in fp32. Summed in a fixed tree. Sums, clip_scale, adamw and
// sgd run on any stream, but sums of one device after each other.
struct SumArgs {
  Tensor out, in;
};
// out[0] = (accumulate ? out[0] : 0) + sum of in^2.  out (1) fp32, in fp32. Summed in a fixed tree.
struct SumOfSquaresArgs {
  Tensor out, in;
  bool accumulate = false;
};
// scale[0] = min(1, norm_max / (sqrt(total) + 1e-6)), total = sum of sums_of_squares; norm_max <= 0
// gives 1, a total that is not finite gives NaN.
//   scale (1), sums_of_squares (any number) fp32, in the device's memory.
struct ClipScaleArgs {
  Tensor scale, sums_of_squares;
  float norm_max = 1;
};

// Decoupled weight decay (Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR
// 2019, algorithm 2):
//   g = gradient * gradient_scale[0];  m = beta1*m + (1-beta1)*g;  v = beta2*v + (1-beta2)*g^2;
//   p -= learning_rate * (m/(1-beta1^step) / (sqrt(v/(1-beta2^step)) + epsilon) + weight_decay*p).
// All of one size n; gradient fp32; gradient_scale (1) fp32, and if it is NaN nothing is updated
// (the step is skipped without the host's knowing); `step` counts from 1. `copy` (fp32 or bf16), if
// present, receives the new p in the same pass. `zero_gradient`: the gradient is 0 afterwards, also
// if the step was skipped.
//
// To save memory:
//   parameter may be bf16: then p is rounded stochastically, with the bits that
//     backend/quantization.h makes of rounding_seed, step and the element's index; no copy.
//   m and v may be uint8 with m_scale, v_scale (ceil(n / 256)) fp32: 8-bit moments in blocks, see
//     backend/quantization.h.
struct AdamwArgs {
  Tensor parameter, gradient, m, v, copy, gradient_scale;
  Tensor m_scale, v_scale;
  float learning_rate = 0, beta1 = 0.9f, beta2 = 0.95f, epsilon = 1e-8f, weight_decay = 0;
  int64_t step = 1;
  bool zero_gradient = false;
  uint64_t rounding_seed = 0;
};
// p -= learning_rate * (gradient * gradient_scale[0] + weight_decay*p).  As AdamwArgs; fp32 only.
struct SgdArgs {
  Tensor parameter, gradient, copy, gradient_scale;
  float learning_rate = 0, weight_decay = 0;
  bool zero_gradient = false;
};

// The int8 codec of the outer loop (outer/codec.h has the format and the rounding), with the same
// bits on every backend, of n values: reference - in, or -in where there is no reference.
//   in (n) fp32 or bf16;  reference (n) fp32, may be absent;
//   scales (ceil(n / 512)) fp32;  codes (n) int8;
//   is_finite (1) int32: set to 0 if a value is not finite (scales and codes are then undefined),
//   else left.
struct EncodeInt8Args {
  Tensor scales, codes, is_finite, in, reference;
};
// out[i] = codes[i] * scales[i / 512].  out (n) fp32.
struct DecodeInt8Args {
  Tensor out, scales, codes;
};

// The int4 codec, in all else as EncodeInt8Args.
//   scales (ceil(n / 128)) bf16;  codes (ceil(n / 2)) uint8: two in a byte, the first in its lower
//   half; the upper half of the last is 0 where n is odd.
struct EncodeInt4Args {
  Tensor scales, codes, is_finite, in, reference;
};
// out[i] = code i * scales[i / 128].  out (n) fp32.
struct DecodeInt4Args {
  Tensor out, scales, codes;
};

// out += in, elementwise, same shape and dtype.
struct AddArgs {
  Tensor out, in;
};
// out[i] = in[0][i] + in[1][i] + ..., in this order, fp32, all of the same length. At most
// kRanksMax tensors, in the memory of any rank that this device sees. `out` may be one of them.
struct SumTensorsArgs {
  Tensor out;
  std::span<const Tensor> in;
};
// out = in: between equal types, or between fp32 and bf16 (round to nearest, ties to even).
struct CastArgs {
  Tensor out, in;
};

class Ops {
 public:
  virtual ~Ops() = default;

  virtual void matmul(const MatmulArgs& args, Stream& stream) = 0;
  virtual void embedding_forward(const EmbeddingForwardArgs& args, Stream& stream) = 0;
  virtual void embedding_backward(const EmbeddingBackwardArgs& args, Stream& stream) = 0;
  virtual void rmsnorm_forward(const RmsnormForwardArgs& args, Stream& stream) = 0;
  virtual void rmsnorm_backward(const RmsnormBackwardArgs& args, Stream& stream) = 0;
  virtual void rope(const RopeArgs& args, Stream& stream) = 0;
  virtual void attention_forward(const AttentionForwardArgs& args, Stream& stream) = 0;
  virtual void attention_backward(const AttentionBackwardArgs& args, Stream& stream) = 0;
  virtual void cache_append(const CacheAppendArgs& args, Stream& stream) = 0;
  virtual void cache_attention(const CacheAttentionArgs& args, Stream& stream) = 0;
  virtual void swiglu_forward(const SwigluForwardArgs& args, Stream& stream) = 0;
  virtual void swiglu_backward(const SwigluBackwardArgs& args, Stream& stream) = 0;
  virtual void cross_entropy(const CrossEntropyArgs& args, Stream& stream) = 0;
  virtual void sum(const SumArgs& args, Stream& stream) = 0;
  virtual void sum_of_squares(const SumOfSquaresArgs& args, Stream& stream) = 0;
  virtual void clip_scale(const ClipScaleArgs& args, Stream& stream) = 0;
  virtual void adamw(const AdamwArgs& args, Stream& stream) = 0;
  virtual void sgd(const SgdArgs& args, Stream& stream) = 0;
  virtual void encode_int8(const EncodeInt8Args& args, Stream& stream) = 0;
  virtual void decode_int8(const DecodeInt8Args& args, Stream& stream) = 0;
  virtual void encode_int4(const EncodeInt4Args& args, Stream& stream) = 0;
  virtual void decode_int4(const DecodeInt4Args& args, Stream& stream) = 0;
  virtual void add(const AddArgs& args, Stream& stream) = 0;
  virtual void sum_tensors(const SumTensorsArgs& args, Stream& stream) = 0;
  virtual void cast(const CastArgs& args, Stream& stream) = 0;
  virtual void zero(const Tensor& out, Stream& stream) = 0;
};

}  // namespace backend
