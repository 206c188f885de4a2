// Strangers, limits, deadlines and a system that refuses: each costs one link, and the reason says
// what happened.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net/host_steps.h"
#include "net/parse_frames.h"
#include "net/transport/address.h"

using namespace net;
using Story = ScriptedMachine::Story;

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

TEST_CASE("links beyond what one address may have are closed at once") {
  HostOptions options;
  options.links_per_address_max = 1;
  TestNode server(options);
  server.host->start();
  TestNode client;
  client.host->start();
  const LinkId first = dial(client, server.endpoint());
  require_works(client, first, server, 1);
  PlainSocket second;
  REQUIRE(second.connect(server.endpoint().port));
  REQUIRE(second.is_closed_by_peer());
  require_works(client, first, server, 2);
  // Links that are dialled from here do not count.
  TestNode other;
  other.host->start();
  (void)dial(server, other.endpoint());
  require_works(client, first, server, 3);
}

// The limit is of the process: a child has one of its own.
TEST_CASE("descriptors are kept back for files") {
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const rlimit few{150, 150};
    if (setrlimit(RLIMIT_NOFILE, &few) != 0) _exit(2);
    TestNode server;
    server.host->start();
    std::vector<std::unique_ptr<PlainSocket>> guests;
    int64_t kept = 0;
    for (int i = 0; i < 40; ++i) {
      guests.push_back(std::make_unique<PlainSocket>());
      if (!guests.back()->connect(server.endpoint().port)) _exit(3);
    }
    // Each of those that were let in was told to the machine; the last ones were not.
    server.machine.wait_until([](const ScriptedMachine::Story& s) { return s.ticks >= 5; });
    kept = int64_t(server.machine.story().incoming.size());
    _exit(kept >= 1 && kept <= 22 ? 0 : 4);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  REQUIRE(WEXITSTATUS(status) == 0);
}

TEST_CASE("a link whose other side does not read is ended, and its bytes count no more") {
  HostOptions options;
  options.write_stall_timeout = std::chrono::milliseconds(500);
  TestNode server(options);
  const auto payload = std::make_shared<const std::vector<std::byte>>(size_t{4} << 20);
  server.machine.opened = [&](LinkId link, Outbox& out) {
    for (uint32_t i = 0; i < 4; ++i) out.send(link, message_of(MessageType::kChunk, payload, i));
  };
  server.host->start();
  PlainSocket guest;
  REQUIRE(guest.connect(server.endpoint().port));
  REQUIRE(guest.send(frame_of(message_of(MessageType::kDataHello, encode(DataHello{1})))));
  REQUIRE(server.machine.wait_until(
      [](const ScriptedMachine::Story& story) { return story.closed.size() == 1; }));
  REQUIRE(server.machine.story().closed.begin()->second == "it takes nothing");
  REQUIRE(on_loop(*server.host, [](Outbox& out) { return out.all_queued_bytes(); }) == 0);
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

TEST_CASE("an exception in the machine ends the process as a bug") {
  // The test runs itself once more, in a process that may end.
  const char* const kInChild = "ATOLL_TEST_IN_CHILD";
  if (getenv(kInChild) != nullptr) {
    TestNode node;
    node.machine.start = [](Outbox&) { throw base::bad_input("not to be seen by libuv"); };
    node.host->start();
    node.machine.wait_until([](const Story&) { return false; });
    return;
  }
  const std::string own_name = Catch::getResultCapture().getCurrentTestName();
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    if (freopen("/dev/null", "w", stdout) == nullptr) _exit(2);
    if (freopen("/dev/null", "w", stderr) == nullptr) _exit(2);
    setenv(kInChild, "1", 1);
    execl("/proc/self/exe", "test_net", own_name.c_str(), nullptr);
    _exit(2);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(WIFSIGNALED(status));
  REQUIRE(WTERMSIG(status) == SIGABRT);
}
