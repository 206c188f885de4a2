// Rare branches say that they were taken, so that a run of many simulated seeds can prove that all
// of them were: one that never was is a branch that nothing tests.
//
//   probe<"a job ends after its chunk has moved">(task.name.attempt != attempt);
//
// Every probe of the program is in the list from its start on, whether it was reached or not. What
// stands in several places under one text is one probe. A hit costs an addition; any thread.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace net {

class Probe {
 public:
  explicit Probe(const char* text) : text_(text), next_(first_) { first_ = this; }
  Probe(const Probe&) = delete;
  Probe& operator=(const Probe&) = delete;

  void hit() { hits_.fetch_add(1, std::memory_order_relaxed); }

  const char* text() const { return text_; }
  uint64_t hits() const { return hits_.load(std::memory_order_relaxed); }
  // The list of all, in no order.
  static const Probe* first() { return first_; }
  const Probe* next() const { return next_; }

 private:
  const char* const text_;
  Probe* const next_;
  std::atomic<uint64_t> hits_{0};
  static inline Probe* first_ = nullptr;
};

// A text as a template's argument.
template <size_t kSize>
struct ProbeText {
  constexpr ProbeText(const char (&text)[kSize]) { std::copy_n(text, kSize, characters); }
  char characters[kSize];
};

template <ProbeText kText>
inline Probe the_probe{kText.characters};

// Counts if `is_so`.
template <ProbeText kText>
void probe(bool is_so = true) {
  if (is_so) the_probe<kText>.hit();
}

}  // namespace net
