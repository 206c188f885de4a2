// Real sockets on the loopback interface, on ports that the system picks. Nothing sleeps: a test
// waits until something has happened, and a deadline only bounds how long a failure takes.
#include "net/host.h"

#include <atomic>
#include <future>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <thread>
#include <time.h>
#include <unistd.h>

#include "base/hash.h"
#include "net/address.h"
#include "net/parse_frames.h"
#include "net/scripted_machine.h"
#undef CHECK
#include "support/catch.h"

using namespace net;
using Story = ScriptedMachine::Story;

namespace {

Message message_of(MessageType type, Bytes payload, uint32_t chunk = 0) {
  return {.type = type,
          .run = 1,
          .source = 2,
          .authority = {.chunk = chunk},
          .payload = std::move(payload)};
}

Message start_message(uint64_t step) {
  return message_of(MessageType::kStart, encode(Start{step}));
}

uint64_t step_of(const Message& message) {
  return decode<Start>(*message.payload)->step;
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// Runs a call on the loop thread and waits for its result.
template <class Call>
auto on_loop(Host& host, Call call) {
  using Value = std::invoke_result_t<Call, Outbox&>;
  auto done = std::make_shared<std::promise<Value>>();
  auto value = done->get_future();
  host.post([done, call](Instant, Outbox& out) { done->set_value(call(out)); });
  REQUIRE(value.wait_for(kTestPatience) == std::future_status::ready);
  return value.get();
}

// Dials `target` and returns the link once it stands.
LinkId dial(TestNode& from, const Endpoint& target) {
  const LinkId link = on_loop(*from.host, [=](Outbox& out) { return out.connect(target); });
  REQUIRE(
      from.machine.wait_until([=](const Story& story) { return story.remotes.contains(link); }));
  return link;
}

std::vector<Message> messages_of(const Story& story) {
  std::vector<Message> all;
  for (const auto& [link, messages] : story.received)
    all.insert(all.end(), messages.begin(), messages.end());
  return all;
}

// Sends a step over `link` and waits until the other side has it.
void require_works(TestNode& from, LinkId link, TestNode& to, uint64_t step) {
  from.host->post([=](Instant, Outbox& out) { out.send(link, start_message(step)); });
  REQUIRE(to.machine.wait_until([=](const Story& story) {
    return std::ranges::any_of(messages_of(story),
                               [=](const Message& m) { return step_of(m) == step; });
  }));
}

}  // namespace

TEST_CASE("200 chunks of 1 MiB arrive, and a sender that waits for drained queues little") {
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
  TestNode sender;
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

  TestNode receiver;
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
  REQUIRE(receiver.host->bytes_received() == kAllBytes);
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
  TestNode server;
  server.host->start();
  TestNode client;
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

TEST_CASE("an incoming link takes no chunks") {
  TestNode server;
  server.host->start();
  TestNode client;
  client.host->start();
  const LinkId link = dial(client, server.endpoint());
  const auto chunk = message_of(MessageType::kChunk, encode(Want{}));
  client.host->post([=](Instant, Outbox& out) { out.send(link, chunk); });
  REQUIRE(server.machine.wait_until([](const Story& story) { return story.closed.size() == 1; }));
  REQUIRE(contains(server.machine.story().closed.begin()->second, "chunk"));
  REQUIRE(
      client.machine.wait_until([=](const Story& story) { return story.closed.contains(link); }));
}

TEST_CASE("garbage costs its sender the link and nobody else") {
  TestNode server;
  server.host->start();
  TestNode client;
  client.host->start();
  const LinkId link = dial(client, server.endpoint());
  require_works(client, link, server, 1);

  const std::string request = "GET / HTTP/1.1\r\nHost: atoll\r\n\r\n";
  std::vector<std::byte> broken_frame = frame_of(start_message(5));
  broken_frame.back() ^= std::byte(1);
  size_t closed_count = 0;
  for (const auto bytes :
       {std::as_bytes(std::span(request)), std::span<const std::byte>(broken_frame)}) {
    PlainSocket stranger;
    REQUIRE(stranger.connect(server.endpoint().port));
    REQUIRE(stranger.send(bytes));
    REQUIRE(stranger.is_closed_by_peer());
    ++closed_count;
    REQUIRE(server.machine.wait_until(
        [=](const Story& story) { return story.closed.size() == closed_count; }));
  }
  require_works(client, link, server, 2);
  const Story story = server.machine.story();
  REQUIRE(!story.closed.contains(story.incoming[0]));
  REQUIRE(contains(story.closed.at(story.incoming[1]), "does not speak"));
  REQUIRE(contains(story.closed.at(story.incoming[2]), "checksum"));
  REQUIRE(messages_of(story).size() == 2);
}

TEST_CASE("a link that sends no frame in time is closed, one that sent one is not") {
  HostOptions options;
  options.first_frame_timeout = std::chrono::milliseconds(50);
  TestNode server(options);
  server.host->start();
  TestNode client;
  client.machine.start = [&](Outbox& out) {
    out.send(out.connect(server.endpoint()), start_message(1));
  };
  // On a machine that stands still for 50 ms the first attempt is late.
  client.machine.closed = [&](LinkId, const std::string&, Outbox& out) {
    client.machine.start(out);
  };
  client.host->start();
  const auto has_message = [](const Story& story) { return !story.received.empty(); };
  REQUIRE(server.machine.wait_until(has_message));
  const LinkId good = server.machine.story().received.begin()->first;

  // The good link was there before and would be closed before this one.
  PlainSocket half_open;
  REQUIRE(half_open.connect(server.endpoint().port));
  const auto frame = frame_of(start_message(7));
  REQUIRE(half_open.send(std::span(frame).first(40)));
  REQUIRE(half_open.is_closed_by_peer());
  const LinkId bad = server.machine.story().incoming.back();
  REQUIRE(bad > good);
  REQUIRE(server.machine.wait_until([=](const Story& s) { return s.closed.contains(bad); }));
  const Story story = server.machine.story();
  REQUIRE(contains(story.closed.at(bad), "in time"));
  REQUIRE(!story.closed.contains(good));
}

TEST_CASE("links beyond the limit are closed at once") {
  HostOptions options;
  options.links_max = 2;
  TestNode server(options);
  server.host->start();
  TestNode client;
  client.host->start();
  const LinkId first = dial(client, server.endpoint());
  const LinkId second = dial(client, server.endpoint());
  require_works(client, first, server, 1);
  require_works(client, second, server, 2);
  PlainSocket third;
  REQUIRE(third.connect(server.endpoint().port));
  REQUIRE(third.is_closed_by_peer());
  require_works(client, first, server, 3);
  REQUIRE(server.machine.story().incoming.size() == 2);
}

TEST_CASE("failures to connect are told with what was tried and why") {
  PlainSocket nobody;
  const uint16_t port = nobody.bind_to_free_port();
  REQUIRE(port != 0);
  TestNode node;
  node.host->start();
  const auto reason = [&](const Endpoint& target) {
    const LinkId link = on_loop(*node.host, [=](Outbox& out) { return out.connect(target); });
    REQUIRE(
        node.machine.wait_until([=](const Story& story) { return story.closed.contains(link); }));
    REQUIRE(!node.machine.story().remotes.contains(link));
    return node.machine.story().closed.at(link);
  };
  REQUIRE(reason({"127.0.0.1", port}) ==
          fmt::format("cannot connect to 127.0.0.1:{}: connection refused", port));
  REQUIRE(contains(reason({"localhost", port}), "connection refused"));
  REQUIRE(contains(reason({std::string(300, 'a'), 1}), "cannot connect to aaa"));

  // A process that may open no more files, until it may again.
  rlimit files{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &files) == 0);
  const rlimit no_files{.rlim_cur = 0, .rlim_max = files.rlim_max};
  REQUIRE(setrlimit(RLIMIT_NOFILE, &no_files) == 0);
  const std::string without_files = reason({"127.0.0.1", port});
  REQUIRE(setrlimit(RLIMIT_NOFILE, &files) == 0);
  REQUIRE(contains(without_files, "too many open files"));
}

TEST_CASE("addresses survive the system's form") {
  for (const Endpoint& endpoint : {Endpoint{"192.0.2.7", 7000}, Endpoint{"2001:db8::1", 65535}}) {
    const auto address = numeric_address(endpoint);
    REQUIRE(address.has_value());
    REQUIRE(to_endpoint(*address) == endpoint);
  }
  REQUIRE(to_endpoint(*numeric_address({"::ffff:192.0.2.7", 1})) == Endpoint{"192.0.2.7", 1});
  REQUIRE(!numeric_address({"localhost", 1}).has_value());
}

TEST_CASE("an address that cannot be listened on is bad input with a hint") {
  const auto refusal = [](const Endpoint& endpoint) {
    ScriptedMachine machine;
    HostOptions options;
    options.listen = endpoint;
    try {
      Host::create(options, machine);
    } catch (const base::Error& error) {
      REQUIRE(error.code() == base::ExitCode::kBadInput);
      REQUIRE(!error.hint().empty());
      return std::string(error.what());
    }
    return std::string("nothing was thrown");
  };
  const TestNode other;
  const uint16_t port = other.endpoint().port;
  REQUIRE(refusal({"127.0.0.1", port}) ==
          fmt::format("cannot listen on 127.0.0.1:{}: address already in use", port));
  REQUIRE(
      contains(refusal({"192.0.2.1", 0}), "cannot listen on 192.0.2.1:0: address not available"));
}

TEST_CASE("last words arrive before the end") {
  TestNode server;
  server.machine.received = [](LinkId link, const Message&, Outbox& out) {
    out.send(link, message_of(MessageType::kReject, encode(Reject{"full"})));
    out.close(link);
    out.send(link, message_of(MessageType::kReject, encode(Reject{"said after the end"})));
  };
  server.host->start();
  TestNode client;
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
TEST_CASE("a machine that throws", "[.][throws]") {
  TestNode node;
  node.machine.start = [](Outbox&) { throw base::bad_input("not to be seen by libuv"); };
  node.host->start();
  node.machine.wait_until([](const Story&) { return false; });
}

TEST_CASE("an exception in the machine ends the process as a bug") {
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    if (freopen("/dev/null", "w", stdout) == nullptr) _exit(2);
    if (freopen("/dev/null", "w", stderr) == nullptr) _exit(2);
    execl("/proc/self/exe", "test_net", "[throws]", nullptr);
    _exit(2);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(WIFSIGNALED(status));
  REQUIRE(WTERMSIG(status) == SIGABRT);
}
