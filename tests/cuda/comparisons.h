// Many small comparisons of the CPU and CUDA on one device each, because making a device takes as
// long as hundreds of them.
#pragma once

#include <string>
#include <vector>

#include "cuda/device_under_test.h"
#include "cuda/pair.h"

namespace cuda_test {

class Comparisons {
 public:
  void add(const std::string& name, const Run& run, const std::vector<Tolerance>& tolerances) {
    all_.push_back({name, run, tolerances, {}, {}});
  }

  // As require_same() with each.
  void require_same() {
    Side cpu(std::move(backend::make_cpu_backends({.threads_per_rank = 2}).front()));
    for (Comparison& c : all_) c.expected = c.run(cpu);
    for_each_order([&](const char* order) {
      INFO("threads " << order);
      Side device(make_device_under_test());
      for (Comparison& c : all_) require_same(c, device);
    });
  }

 private:
  struct Comparison {
    std::string name;
    Run run;
    std::vector<Tolerance> tolerances;
    std::vector<Values> expected, first;
  };

  static void require_same(Comparison& c, Side& device) {
    INFO(c.name);
    const std::vector<Values> found = c.run(device);
    REQUIRE(found.size() == c.expected.size());
    REQUIRE(found.size() == c.tolerances.size());
    for (size_t i = 0; i < found.size(); ++i) {
      INFO("output " << i);
      ops_test::require_close(found[i], c.expected[i], c.tolerances[i]);
    }
    if (c.first.empty()) c.first = found;
    REQUIRE(found == c.first);
  }

  std::vector<Comparison> all_;
};

}  // namespace cuda_test
