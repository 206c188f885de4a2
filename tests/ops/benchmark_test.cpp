// The stopwatch of the micro-benchmarks. They are hidden test cases: `test_ops "[benchmark]"`, or
// `meson test --benchmark`.
#include <algorithm>
#include <chrono>
#include <fmt/format.h>
#include <iostream>

#include "ops/rig.h"

namespace ops_test {

void run_benchmark(Rig& rig, const Benchmark& benchmark, const std::function<void()>& body) {
  using Clock = std::chrono::steady_clock;
  constexpr size_t kRunsMin = 5, kRunsMax = 200;
  constexpr std::chrono::milliseconds kEnough{300};
  auto run = [&] {
    const auto start = Clock::now();
    body();
    rig.device().synchronize(rig.stream());
    return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
  };
  run();  // Touches memory and wakes the threads.
  std::vector<double> microseconds;
  const auto start = Clock::now();
  while (microseconds.size() < kRunsMin ||
         (microseconds.size() < kRunsMax && Clock::now() - start < kEnough)) {
    microseconds.push_back(run());
  }
  std::sort(microseconds.begin(), microseconds.end());
  const double median = microseconds[microseconds.size() / 2];
  std::string line = fmt::format(R"({{"benchmark":"{}","shape":"{}","device":"{}")", benchmark.name,
                                 benchmark.shape, rig.device().name());
  line += fmt::format(R"(,"median_us":{:.1f},"fastest_us":{:.1f},"runs":{})", median,
                      microseconds.front(), microseconds.size());
  if (benchmark.flop > 0)
    line += fmt::format(R"(,"gflop_per_second":{:.1f})", benchmark.flop / median / 1e3);
  if (benchmark.bytes > 0)
    line += fmt::format(R"(,"gb_per_second":{:.1f})", benchmark.bytes / median / 1e3);
  std::cout << line << "}" << std::endl;
}

}  // namespace ops_test
