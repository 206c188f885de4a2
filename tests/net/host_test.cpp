// Real sockets on the loopback interface, on ports that the system picks. Nothing sleeps: a test
// waits until something has happened, and a deadline only bounds how long a failure takes.
#include "net/host.h"

#include <atomic>
#include <thread>
#include <time.h>

#include "base/hash.h"
#include "net/host_steps.h"
#include "net/security_rig.h"

using namespace net;
using Story = ScriptedMachine::Story;

namespace {

// Of a host over plain TCP or TLS.
HostOptions options_of(bool is_secured) {
  HostOptions options;
  if (is_secured) options.security = with_secret(1);
  return options;
}

}  // namespace

TEST_CASE("200 chunks of 1 MiB arrive, and a sender that waits for drained queues little") {
  const bool is_secured = GENERATE(false, true);
  INFO("secured " << is_secured);
  constexpr uint32_t kChunkCount = 200;
  constexpr size_t kChunkBytes = 1 << 20;
  const uint64_t seed = 3;
  INFO("seed " << seed);
  base::Random random(seed);
  std::vector<Bytes> chunks;  // A few contents that differ, used in turn.
  for (int i = 0; i < 7; ++i) {
    std::vector<std::byte> bytes(kChunkBytes);
    for (std::byte& byte : bytes) byte = std::byte(uint8_t(random.next_u64()));
    chunks.push_back(std::make_shared<const std::vector<std::byte>>(std::move(bytes)));
  }

  uint32_t next = 0;
  int64_t queued_bytes_max = 0;
  int drained_count = 0;
  TestNode sender(options_of(is_secured));
  const auto pump = [&](LinkId link, Outbox& out) {
    while (next < kChunkCount && out.queued_bytes(link) < kQueuedBytesMax) {
      out.send(link, message_of(MessageType::kChunk, chunks[next % chunks.size()], next));
      ++next;
      queued_bytes_max = std::max(queued_bytes_max, out.queued_bytes(link));
    }
  };
  sender.machine.received = [&](LinkId link, const Message&, Outbox& out) { pump(link, out); };
  sender.machine.drained = [&](LinkId link, Outbox& out) {
    ++drained_count;
    pump(link, out);
  };
  sender.host->start();

  TestNode receiver(options_of(is_secured));
  receiver.machine.start = [&](Outbox& out) {
    out.send(out.connect(sender.endpoint()), message_of(MessageType::kWant, encode(Want{})));
  };
  receiver.host->start();
  REQUIRE(receiver.machine.wait_until(
      [](const Story& story) { return messages_of(story).size() == kChunkCount; }));

  const std::vector<Message> received = messages_of(receiver.machine.story());
  for (uint32_t i = 0; i < kChunkCount; ++i) {
    INFO("chunk " << i);
    REQUIRE(received[i].authority.chunk == i);
    REQUIRE(*received[i].payload == *chunks[i % chunks.size()]);
  }
  constexpr int64_t kAllBytes = kChunkCount * int64_t(kChunkBytes + 64);
  const int64_t bytes_received = receiver.host->bytes_received();
  if (!is_secured) REQUIRE(bytes_received == kAllBytes);
  if (is_secured) REQUIRE((bytes_received > kAllBytes && bytes_received < kAllBytes * 1.01));
  // Its last write may be reported to the sender after the receiver has it.
  on_loop(*sender.host, [](Outbox&) { return 0; });
  const int64_t queued_bytes_limit = kQueuedBytesMax + int64_t(kChunkBytes) + 64;
  sender.host.reset();
  receiver.host.reset();
  REQUIRE(queued_bytes_max >= kQueuedBytesMax);  // Else drained was not tested.
  REQUIRE(queued_bytes_max <= queued_bytes_limit);
  REQUIRE(drained_count > 0);
}

TEST_CASE("what is sent before the connection stands arrives in order, also by name") {
  const bool is_secured = GENERATE(false, true);
  INFO("secured " << is_secured);
  TestNode server(options_of(is_secured));
  server.host->start();
  TestNode client(options_of(is_secured));
  client.machine.start = [&](Outbox& out) {
    // The name may have an IPv6 address too, where nobody listens: the next one is tried.
    const LinkId link = out.connect({"localhost", server.endpoint().port});
    for (uint64_t step = 0; step < 10; ++step) out.send(link, start_message(step));
  };
  client.host->start();
  REQUIRE(server.machine.wait_until(
      [](const Story& story) { return messages_of(story).size() == 10; }));
  const Story story = server.machine.story();
  const std::vector<Message> received = messages_of(story);
  for (uint64_t step = 0; step < 10; ++step) {
    REQUIRE(step_of(received[step]) == step);
    REQUIRE(received[step].source == 2);
    REQUIRE(received[step].run == 1);
  }
  REQUIRE(story.incoming.size() == 1);
  REQUIRE(story.remotes.at(story.incoming[0]).host == "127.0.0.1");
  REQUIRE(client.machine.wait_until([](const Story& s) { return s.outgoing.size() == 1; }));
  const Story told = client.machine.story();
  REQUIRE(told.remotes.at(told.outgoing[0]) == server.endpoint());
}

TEST_CASE("last words arrive before the end") {
  const bool is_secured = GENERATE(false, true);
  INFO("secured " << is_secured);
  TestNode server(options_of(is_secured));
  server.machine.received = [](LinkId link, const Message&, Outbox& out) {
    out.send(link, message_of(MessageType::kReject, encode(Reject{"full"})));
    out.close(link);
    out.send(link, message_of(MessageType::kReject, encode(Reject{"said after the end"})));
  };
  server.host->start();
  TestNode client(options_of(is_secured));
  client.machine.opened = [](LinkId link, Outbox& out) {
    // The server closes with most of these unread.
    for (uint64_t step = 0; step < 1000; ++step) out.send(link, start_message(step));
  };
  client.host->start();
  const LinkId link = dial(client, server.endpoint());
  REQUIRE(
      client.machine.wait_until([=](const Story& story) { return story.closed.contains(link); }));
  const Story story = client.machine.story();
  REQUIRE(messages_of(story).size() == 1);
  REQUIRE(decode<Reject>(*messages_of(story)[0].payload)->reason == "full");
  REQUIRE(story.closed.at(link) == "closed by the other side");
  REQUIRE(server.machine.story().closed.empty());  // It closed the link itself.
}

TEST_CASE("what was sent before the host is destroyed goes out") {
  TestNode server;
  server.host->start();
  TestNode client;
  client.host->start();
  const LinkId link = dial(client, server.endpoint());
  client.host->post([=](Instant, Outbox& out) {
    for (uint64_t step = 0; step < 5; ++step) out.send(link, start_message(step));
  });
  client.host.reset();
  REQUIRE(server.machine.wait_until([](const Story& story) { return story.closed.size() == 1; }));
  REQUIRE(messages_of(server.machine.story()).size() == 5);
}

TEST_CASE("a host can be destroyed at any time") {
  SECTION("before it was started, with a connection waiting") {
    TestNode node;
    PlainSocket client;
    REQUIRE(client.connect(node.endpoint().port));
    node.host.reset();
    REQUIRE(node.machine.story().incoming.empty());
    REQUIRE(client.is_closed_by_peer());
  }
  SECTION("while it dials") {
    TestNode node;
    node.machine.start = [](Outbox& out) {
      for (int i = 0; i < 10; ++i) out.send(out.connect({"192.0.2.1", 1}), start_message(0));
      out.connect({"localhost", 1});
    };
    node.host->start();
    REQUIRE(node.machine.wait_until([](const Story& story) { return story.ticks > 0; }));
    node.host.reset();
  }
  SECTION("while the other side does not read") {
    TestNode node;
    node.machine.opened = [](LinkId link, Outbox& out) {
      const auto payload = std::make_shared<const std::vector<std::byte>>(size_t(kDataBytesMax));
      for (int i = 0; i < 8; ++i) out.send(link, message_of(MessageType::kChunk, payload));
    };
    node.host->start();
    PlainSocket client;
    REQUIRE(client.connect(node.endpoint().port));
    REQUIRE(node.machine.wait_until([](const Story& story) { return story.incoming.size() == 1; }));
    node.host.reset();
    REQUIRE(client.is_closed_by_peer());
  }
}

TEST_CASE("events do not come from inside the calls that cause them") {
  TestNode server;
  server.host->start();
  HostOptions options;
  options.queued_bytes_hard_max = 1000;
  TestNode client(options);
  std::atomic<LinkId> closed_before_its_event = 0;
  client.machine.opened = [&](LinkId link, Outbox& out) {
    const auto large = std::make_shared<const std::vector<std::byte>>(2000);
    out.send(link, message_of(MessageType::kHello, large));  // Fails at once.
    out.send(link, start_message(1));                        // Goes nowhere.
    const LinkId other = out.connect({std::string(300, 'a'), 1});
    out.close(other);
    closed_before_its_event = other;
  };
  client.machine.start = [&](Outbox& out) { out.connect(server.endpoint()); };
  client.host->start();
  REQUIRE(client.machine.wait_until([](const Story& story) { return story.closed.size() == 1; }));
  REQUIRE(on_loop(*client.host, [&](Outbox& out) { return out.queued_bytes(1); }) == 0);
  const Story story = client.machine.story();
  REQUIRE(!story.was_reentered);
  REQUIRE(contains(story.closed.begin()->second, "queued"));
  REQUIRE(!story.closed.contains(closed_before_its_event));
  REQUIRE(messages_of(server.machine.story()).empty());
}

TEST_CASE("calls posted from many threads all run, on the one loop thread") {
  constexpr int kThreadCount = 4;
  constexpr int kCallCount = 500;
  TestNode node;
  int64_t sum = 0;  // Without a lock: all calls are on one thread.
  const auto post_all = [&] {
    for (int i = 0; i < kCallCount; ++i) node.host->post([&](Instant, Outbox&) { ++sum; });
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreadCount; ++i) threads.emplace_back(post_all);
  node.host->start();
  for (std::thread& thread : threads) thread.join();
  REQUIRE(on_loop(*node.host, [&](Outbox&) { return sum; }) == kThreadCount * kCallCount);
}

TEST_CASE("jobs run beside the loop, and their ends are told on it") {
  constexpr int kJobCount = 50;
  std::atomic<int> worked_beside = 0;
  std::vector<std::thread::id> done_on;
  std::thread::id loop;
  std::promise<void> all_done;
  bool was_inside = false, is_inside = false;
  TestNode node;
  node.machine.start = [&](Outbox& out) {
    loop = std::this_thread::get_id();
    is_inside = true;
    for (int i = 0; i < kJobCount; ++i) {
      out.start({.work = [&] { worked_beside += std::this_thread::get_id() != loop; },
                 .done =
                     [&](Instant, Outbox&) {
                       was_inside |= is_inside;
                       done_on.push_back(std::this_thread::get_id());
                       if (done_on.size() == kJobCount) all_done.set_value();
                     }});
    }
    is_inside = false;
  };
  node.host->start();
  REQUIRE(all_done.get_future().wait_for(kTestPatience) == std::future_status::ready);
  REQUIRE(worked_beside == kJobCount);
  REQUIRE(std::ranges::count(done_on, loop) == kJobCount);
  REQUIRE(!was_inside);
}

TEST_CASE("a host that ends waits for the jobs that are out") {
  std::promise<void> begun, may_end;
  std::atomic<bool> has_ended = false;
  TestNode node;
  node.machine.start = [&](Outbox& out) {
    out.start({.work =
                   [&, end = may_end.get_future().share()] {
                     begun.set_value();
                     end.wait();
                     has_ended = true;
                   },
               .done = [](Instant, Outbox&) {}});
  };
  node.host->start();
  REQUIRE(begun.get_future().wait_for(kTestPatience) == std::future_status::ready);
  std::thread ender([&] { node.host.reset(); });
  may_end.set_value();
  ender.join();
  REQUIRE(has_ended);
}

TEST_CASE("an idle host hardly uses the processor") {
  TestNode server;
  server.host->start();
  TestNode client;
  client.host->start();
  dial(client, server.endpoint());
  const auto used = [&] {
    return on_loop(*client.host, [](Outbox&) {
      timespec time{};
      clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
      return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
    });
  };
  const auto before = used();
  const int64_t ticks = client.machine.story().ticks;
  // Three ticks are at least 200 ms.
  REQUIRE(client.machine.wait_until([=](const Story& story) { return story.ticks >= ticks + 3; }));
  REQUIRE(used() - before < std::chrono::milliseconds(50));
}

// Hidden, because it ends the process: for the test below.
