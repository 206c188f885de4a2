// Collectives between the ranks of one node.
#pragma once

#include <string>

#include "backend/device.h"
#include "backend/tensor.h"

namespace backend {

// One object per rank. Every rank calls the same operations in the same order, each from its own
// thread, and one thread at a time per rank.
//
// Asynchronous on `stream`, but a meeting of the hosts: an operation is queued on no device before
// all ranks have called it, and no call returns before it is queued on all. So a rank that
// allocates late, or fails, never leaves a kernel of another waiting on its device.
//
// Nothing waits for ever. A rank that does not come within the deadline given at creation makes the
// operation throw resource_lost on all others, naming the rank; an operation that does not end on
// the devices within it is torn down. After that, and after abort(), every call throws.
//
// n elements per rank, R ranks. all_gather and broadcast move any type; the others sum fp32, in an
// order that depends on R and the tensors' size alone, so that a fixed R gives fixed bits.
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int rank_count() const = 0;

  // out (R*n) = the `in` (n) of rank 0, 1, ... `in` may be its own place inside `out`.
  virtual void all_gather(const Tensor& out, const Tensor& in, Stream& stream) = 0;
  // out (n) = part `rank` of the sum of all `in` (R*n). `out` may be its own place inside `in`; the
  // rest of `in` is as before.
  virtual void reduce_scatter(const Tensor& out, const Tensor& in, Stream& stream) = 0;
  // data (n) = the sum of all.
  virtual void all_reduce(const Tensor& data, Stream& stream) = 0;
  virtual void broadcast(const Tensor& data, int root, Stream& stream) = 0;
  // The host waits until all ranks are here.
  virtual void barrier() = 0;

  // From any thread: the other calls of all ranks throw resource_lost with this reason, those that
  // wait included, and what is queued on devices ends without a result. Only the first reason
  // counts.
  virtual void abort(const std::string& reason) = 0;
  // From any thread: throws what the other calls would throw. For whoever waits for ranks that may
  // hang on their devices.
  virtual void check() = 0;
};

}  // namespace backend
