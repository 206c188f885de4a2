// Runs one function as several ranks, a thread each, on the CPU backend. For the tests of shard,
// model and optim.
#pragma once

#include <exception>
#include <functional>
#include <thread>
#include <vector>

#include "backend/backend.h"

namespace shard_test {

// Catch may not be used inside `body`: its assertions are not for several threads.
inline void run_ranks(int rank_count, const std::function<void(backend::Backend&)>& body) {
  std::vector<backend::Backend> backends =
      backend::make_cpu_backends({.ranks = rank_count, .threads_per_rank = 1});
  std::vector<std::exception_ptr> errors(backends.size());
  std::vector<std::thread> threads;
  for (size_t rank = 0; rank < backends.size(); ++rank) {
    threads.emplace_back([&, rank] {
      try {
        body(backends[rank]);
      } catch (...) {
        errors[rank] = std::current_exception();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

}  // namespace shard_test
