// The pool: ranges cover everything once and are cut in one way only; exceptions come out; a loop
// in a loop is a bug. Many short loops in a row look for lost wake-ups (a lost one hangs, and the
// test runner's limit fails it).
#include "base/thread.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <future>
#include <sched.h>
#include <set>
#include <stdexcept>
#include <thread>
#include <tuple>
#include <vector>

#include "base/error.h"
#include "base/math.h"
#include "support/catch.h"
#include "support/child_process.h"

using base::ThreadPool;

namespace {

using Ranges = std::set<std::tuple<int64_t, int64_t, int>>;

Ranges ranges_of(ThreadPool& pool, int64_t count, int64_t grain) {
  Ranges ranges;
  std::mutex mutex;
  pool.parallel_for(count, grain, [&](int64_t begin, int64_t end, int worker) {
    std::lock_guard lock(mutex);
    ranges.insert({begin, end, worker});
  });
  return ranges;
}

}  // namespace

TEST_CASE("Ranges cover the whole loop once, at multiples of the grain", "[thread]") {
  for (const int thread_count : {1, 2, 3, 7}) {
    ThreadPool pool(thread_count);
    for (const int64_t count : {0, 1, 2, 7, 8, 9, 100, 101}) {
      for (const int64_t grain : {1, 3, 8, 200}) {
        CAPTURE(thread_count, count, grain);
        const Ranges ranges = ranges_of(pool, count, grain);
        REQUIRE(int64_t(ranges.size()) ==
                std::min<int64_t>(thread_count, base::div_ceil(count, grain)));
        int64_t next = 0;
        int next_worker = 0;
        for (const auto& [begin, end, worker] : ranges) {
          REQUIRE(begin == next);
          REQUIRE(end > begin);
          REQUIRE(begin % grain == 0);
          REQUIRE(worker == next_worker++);
          next = end;
        }
        REQUIRE(next == count);
      }
    }
  }
}

TEST_CASE("The cut is even and the same in every run and every pool of the same size", "[thread]") {
  ThreadPool pool(4), other(4);
  const Ranges expected = {{0, 30, 0}, {30, 60, 1}, {60, 80, 2}, {80, 95, 3}};
  for (int run = 0; run < 20; ++run) REQUIRE(ranges_of(pool, 95, 10) == expected);
  REQUIRE(ranges_of(other, 95, 10) == expected);
}

TEST_CASE("Thousands of short loops in a row lose nothing", "[thread]") {
  for (const int thread_count : {2, 5}) {
    ThreadPool pool(thread_count);
    std::vector<int64_t> sums(size_t(thread_count), 0);
    for (int64_t loop = 0; loop < 3000; ++loop) {
      // Loops of different widths, so that workers skip some.
      pool.parallel_for(1 + loop % 7, 1, [&](int64_t begin, int64_t end, int worker) {
        sums[size_t(worker)] += end - begin;
      });
    }
    int64_t sum = 0, expected = 0;
    for (const int64_t part : sums) sum += part;
    for (int64_t loop = 0; loop < 3000; ++loop) expected += 1 + loop % 7;
    REQUIRE(sum == expected);
  }
}

TEST_CASE("Items are visited once each, by workers of the pool", "[thread]") {
  for (const int thread_count : {1, 3}) {
    ThreadPool pool(thread_count);
    for (const int64_t count : {0, 1, 2, 100}) {
      std::vector<std::atomic<int>> visits(static_cast<size_t>(count));
      std::atomic<bool> is_worker_valid = true;
      pool.parallel_items(count, [&](int64_t index, int worker) {
        ++visits[size_t(index)];
        if (worker < 0 || worker >= thread_count) is_worker_valid = false;
      });
      for (const auto& visit_count : visits) REQUIRE(visit_count == 1);
      REQUIRE(is_worker_valid);
    }
  }
}

TEST_CASE("A free worker takes the next item while another one is busy", "[thread]") {
  ThreadPool pool(2);
  // Item 0 ends only when all others are done, which therefore the other worker must do.
  std::atomic<int> done = 0;
  pool.parallel_items(10, [&](int64_t index, int) {
    if (index == 0) {
      while (done < 9) std::this_thread::yield();
    } else {
      ++done;
    }
  });
  REQUIRE(done == 9);
}

TEST_CASE("An exception of the body comes out, and the pool goes on working", "[thread]") {
  ThreadPool pool(3);
  for (const int thrower : {0, 1, 2}) {
    REQUIRE_THROWS_AS(pool.parallel_for(3, 1,
                                        [&](int64_t, int64_t, int worker) {
                                          if (worker == thrower) throw std::runtime_error("body");
                                        }),
                      std::runtime_error);
  }
  REQUIRE_THROWS_WITH(pool.parallel_for(3, 1,
                                        [](int64_t, int64_t, int worker) {
                                          throw std::runtime_error(std::to_string(worker));
                                        }),
                      "0");  // The lowest worker's, whoever was first.
  REQUIRE_THROWS_AS(pool.parallel_items(100, [](int64_t, int) { throw base::bad_input("item"); }),
                    base::Error);
  REQUIRE(ranges_of(pool, 3, 1).size() == 3);
}

TEST_CASE("Loops wait for every share", "[thread]") {
  ThreadPool pool(2);
  for (int loop = 0; loop < 200; ++loop) {
    std::vector<int> marks(
        2, 0);  // On the stack of the loop: a late worker would write to dead memory.
    pool.parallel_for(2, 1, [&](int64_t begin, int64_t, int) {
      if (begin == 1) std::this_thread::yield();
      marks[size_t(begin)] = 1;
    });
    REQUIRE(marks == std::vector<int>{1, 1});
  }
}

TEST_CASE("A loop inside a loop of the same pool is a bug", "[thread]") {
  for (const int thread_count : {1, 2}) {
    const test::ChildEnd end = test::run_in_child([&] {
      ThreadPool pool(thread_count);
      pool.parallel_for(
          2, 1, [&](int64_t, int64_t, int) { pool.parallel_items(1, [](int64_t, int) {}); });
    });
    REQUIRE(end.was_aborted());
    REQUIRE(end.stderr_text.find("a loop inside a loop") != std::string::npos);
  }
}

TEST_CASE("One pool may be used inside a loop of another", "[thread]") {
  ThreadPool outer(2), inner(2);
  std::atomic<int64_t> sum = 0;
  outer.parallel_for(2, 1, [&](int64_t begin, int64_t, int) {
    if (begin != 0) return;
    inner.parallel_for(10, 1, [&](int64_t from, int64_t to, int) { sum += to - from; });
  });
  REQUIRE(sum == 10);
}

TEST_CASE("Available processors are at least one and at most those of the affinity mask",
          "[thread]") {
  cpu_set_t mask;
  REQUIRE(sched_getaffinity(0, sizeof mask, &mask) == 0);
  REQUIRE(base::available_processors() >= 1);
  REQUIRE(base::available_processors() <= CPU_COUNT(&mask));
  REQUIRE(ThreadPool(0).thread_count() == base::available_processors());

  cpu_set_t one;
  CPU_ZERO(&one);
  for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++i) {
    if (CPU_ISSET(i, &mask)) CPU_SET(i, &one);
  }
  REQUIRE(sched_setaffinity(0, sizeof one, &one) == 0);
  const int count = base::available_processors();
  REQUIRE(sched_setaffinity(0, sizeof mask, &mask) == 0);
  REQUIRE(count == 1);
}

TEST_CASE("Thread names are cut to what the kernel takes", "[thread]") {
  std::string name(64, '\0');
  std::thread([&] {
    base::set_thread_name("a-name-that-is-too-long");
    pthread_getname_np(pthread_self(), name.data(), name.size());
  }).join();
  REQUIRE(std::string(name.c_str()) == "a-name-that-is-");
}

TEST_CASE("Threads that are alive are known by what they have used", "[thread]") {
  std::promise<void> named;
  std::atomic<bool> may_end = false;
  std::thread burner([&] {
    base::set_thread_name("burner");
    named.set_value();
    while (!may_end) continue;
  });
  named.get_future().wait();
  while (base::cpu_seconds_of("burner") < 0.02) continue;
  may_end = true;
  burner.join();
  REQUIRE(base::cpu_seconds_of("burner") == 0);
}

TEST_CASE("Cost of a loop, back to back and after a pause", "[.benchmark][thread]") {
  using Clock = std::chrono::steady_clock;
  const auto pause = GENERATE(std::chrono::microseconds(0), std::chrono::microseconds(200));
  for (const int thread_count : {1, base::available_processors()}) {
    ThreadPool pool(thread_count);
    std::atomic<int64_t> sum = 0;
    const int64_t loop_count = 5000;
    std::vector<double> times;
    for (int64_t loop = 0; loop < loop_count; ++loop) {
      const auto pause_begin = Clock::now();
      while (Clock::now() - pause_begin < pause) continue;  // Workers fall asleep meanwhile.
      const auto begin = Clock::now();
      pool.parallel_for(thread_count, 1, [&](int64_t from, int64_t to, int) {
        sum.fetch_add(to - from, std::memory_order_relaxed);
      });
      times.push_back(std::chrono::duration<double, std::micro>(Clock::now() - begin).count());
    }
    std::sort(times.begin(), times.end());
    WARN(thread_count << " threads, " << pause.count() << " us pause: median "
                      << times[times.size() / 2] << ", 90 % " << times[times.size() * 9 / 10]
                      << " us a loop");
    REQUIRE(sum == thread_count * loop_count);
  }
}
