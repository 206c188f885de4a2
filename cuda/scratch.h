// Device memory for what an operation needs between its own kernels. Grows at the first need (the
// warm-up step) and is then kept, so that a steady state allocates nothing.
#pragma once

#include <cstdint>

namespace cuda {

class Scratch {
 public:
  Scratch() = default;
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  // At least `byte_count` bytes of undefined content, 256-byte aligned, valid until the next call.
  // All users run on one stream, so that the next one's kernels come after the last one's.
  void* at_least(int64_t byte_count);
  template <class T>
  T* array(int64_t count) {
    return static_cast<T*>(at_least(count * int64_t(sizeof(T))));
  }

  void set_steady(bool steady) { is_steady_ = steady; }
  int64_t byte_count() const { return byte_count_; }

 private:
  void* memory_ = nullptr;
  int64_t byte_count_ = 0;
  bool is_steady_ = false;
};

}  // namespace cuda
