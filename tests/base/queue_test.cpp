// The queue between threads: order, the limit, and what close() does to both sides.
#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "base/thread.h"
#include "support/catch.h"

using base::BoundedQueue;

TEST_CASE("A queue gives back what went in, in order, drains after close, then ends", "[queue]") {
  BoundedQueue<std::unique_ptr<int>> queue(4);  // Entries need only be movable.
  for (int i = 0; i < 3; ++i) REQUIRE(queue.push(std::make_unique<int>(i)));
  queue.close();
  REQUIRE(!queue.push(std::make_unique<int>(3)));
  for (int i = 0; i < 3; ++i) REQUIRE(**queue.pop() == i);
  REQUIRE(!queue.pop());
}

TEST_CASE("A producer never is further ahead than the queue's capacity", "[queue]") {
  constexpr int kCapacity = 3;
  BoundedQueue<int> queue(kCapacity);
  std::atomic<int> pushed = 0;
  std::thread producer([&] {
    for (int i = 0; i < 500; ++i) {
      queue.push(i);
      ++pushed;
    }
    queue.close();
  });
  int popped = 0;
  bool in_order = true;
  int furthest = 0;
  while (const auto value = queue.pop()) {
    in_order = in_order && *value == popped++;
    furthest = std::max(furthest, pushed - popped);
  }
  producer.join();
  REQUIRE(in_order);
  REQUIRE(popped == 500);
  REQUIRE(furthest <= kCapacity);
}

TEST_CASE("close() wakes a producer and a consumer that wait", "[queue]") {
  BoundedQueue<int> full(1), empty(1);
  REQUIRE(full.push(1));
  std::atomic<bool> push_result = true;
  std::atomic<bool> pop_result = true;
  std::thread producer([&] { push_result = full.push(2); });
  std::thread consumer([&] { pop_result = empty.pop().has_value(); });
  full.close();
  empty.close();
  producer.join();
  consumer.join();
  REQUIRE(!push_result);
  REQUIRE(!pop_result);
}

TEST_CASE("Many producers and consumers lose nothing and double nothing", "[queue]") {
  constexpr int kPerProducer = 300;
  BoundedQueue<int> queue(2);
  std::vector<std::atomic<int>> seen(3 * kPerProducer);
  std::vector<std::thread> producers, consumers;
  for (int p = 0; p < 3; ++p) {
    producers.emplace_back([&, p] {
      for (int i = 0; i < kPerProducer; ++i) queue.push(p * kPerProducer + i);
    });
    consumers.emplace_back([&] {
      while (const auto value = queue.pop()) ++seen[size_t(*value)];
    });
  }
  for (auto& thread : producers) thread.join();
  queue.close();
  for (auto& thread : consumers) thread.join();
  for (const auto& count : seen) REQUIRE(count == 1);
}
