// Collectives between the ranks of one node.
#pragma once

#include <chrono>

#include "backend/device.h"
#include "backend/tensor.h"

namespace backend {

// One object per rank; every rank calls the same operations in the same order, each from its own
// thread. Asynchronous on `stream`. A rank that does not arrive within the deadline given at
// creation makes the operation throw resource_lost on all others, naming the rank; after that every
// further call throws too.
//
// n elements per rank, R ranks. all_gather and broadcast move any type; the others sum fp32, in
// rank order, so that a fixed R gives fixed bits.
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int rank_count() const = 0;

  // out (R*n) = the `in` (n) of rank 0, 1, ... `in` may be its own place inside `out`.
  virtual void all_gather(const Tensor& out, const Tensor& in, Stream& stream) = 0;
  // out (n) = part `rank` of the sum of all `in` (R*n). `out` may be its own place inside `in`.
  virtual void reduce_scatter(const Tensor& out, const Tensor& in, Stream& stream) = 0;
  // data (n) = the sum of all.
  virtual void all_reduce(const Tensor& data, Stream& stream) = 0;
  virtual void broadcast(const Tensor& data, int root, Stream& stream) = 0;
  // The host waits until all ranks are here.
  virtual void barrier() = 0;
};

}  // namespace backend
