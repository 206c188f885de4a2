// Lines that are held up, first as arithmetic, then over real sockets. Times are only compared with
// what is too early.
#include <optional>

#include "net/host_steps.h"
#include "net/transport/held_line.h"

using namespace net;
using std::chrono::milliseconds;
using std::chrono::seconds;
using Story = ScriptedMachine::Story;

namespace {

Message message_of_bytes(int64_t byte_count, uint32_t mark) {
  return message_of(MessageType::kChunk,
                    std::make_shared<const std::vector<std::byte>>(size_t(byte_count)), mark);
}

// What comes out by `now`, as links and marks.
std::vector<std::pair<LinkId, uint32_t>> taken(HeldLine& line, Instant now) {
  std::vector<std::pair<LinkId, uint32_t>> all;
  while (const auto parcel = line.take(now)) {
    const auto* message = std::get_if<Message>(&parcel->what);
    all.emplace_back(parcel->link, message == nullptr ? 999 : message->authority.chunk);
  }
  return all;
}

HostOptions rehearsing(const RehearsalOptions& rehearsal) {
  HostOptions options;
  options.rehearsal = rehearsal;
  return options;
}

}  // namespace

TEST_CASE("a held line takes turns between links, and is as slow as it should be") {
  using List = std::vector<std::pair<LinkId, uint32_t>>;
  HeldLine line(1000, milliseconds(500));
  REQUIRE(!line.next());
  // A second each, with the header.
  for (const uint32_t mark : {0, 1, 2}) line.put({7, message_of_bytes(936, mark)}, seconds(10));
  line.put({7, HeldLine::End{"over"}}, seconds(10));
  line.put({3, message_of_bytes(936, 0)}, seconds(10));
  REQUIRE(line.queued_bytes(7) == 3000);
  REQUIRE(line.queued_bytes() == 4000);
  REQUIRE(taken(line, milliseconds(11'499)) == List{});
  REQUIRE(*line.next() == milliseconds(11'500));
  REQUIRE(taken(line, milliseconds(11'500)) == List{{3, 0}});
  // However late one looks, the line has lost no time.
  REQUIRE(taken(line, milliseconds(14'499)) == List{{7, 0}, {7, 1}});
  REQUIRE(taken(line, milliseconds(14'500)) == List{{7, 2}, {7, 999}});
  REQUIRE(!line.next());
  REQUIRE(line.queued_bytes() == 0);

  line.put({7, message_of_bytes(936, 5)}, seconds(20));
  line.put({8, message_of_bytes(936, 6)}, seconds(20));
  line.forget(7);
  REQUIRE(line.queued_bytes() == 1000);
  REQUIRE(taken(line, seconds(30)) == List{{8, 6}});
}

TEST_CASE("a line for chunks lets all else go first, and the chunks make up for it") {
  using List = std::vector<std::pair<LinkId, uint32_t>>;
  HeldLine line(1000, Duration{0}, HeldLine::Holds::kChunks);
  // A second each, with the header.
  for (const uint32_t mark : {0, 1, 2}) line.put({7, message_of_bytes(936, mark)}, seconds(10));
  line.put({7, HeldLine::End{"over"}}, seconds(10));
  REQUIRE(taken(line, seconds(10)) == List{{7, 0}});
  REQUIRE(*line.next() == seconds(11));
  Message urgent = message_of_bytes(936, 50);
  urgent.type = MessageType::kHeartbeat;
  line.put({3, urgent}, milliseconds(10'500));
  REQUIRE(taken(line, milliseconds(10'500)) == List{{3, 50}});
  REQUIRE(*line.next() == seconds(12));
  REQUIRE(taken(line, milliseconds(11'999)) == List{});
  REQUIRE(taken(line, seconds(12)) == List{{7, 1}});
  // What comes behind a chunk on its own link stays behind it.
  line.put({7, urgent}, seconds(12));
  REQUIRE(taken(line, seconds(12)) == List{});
  REQUIRE(taken(line, seconds(13)) == List{{7, 2}, {7, 999}, {7, 50}});
  REQUIRE(line.queued_bytes() == 0);
}

TEST_CASE("a host with a capped uplink sends chunks no faster than that") {
  HostOptions options;
  options.uplink_bytes_per_second = 1.05 * 2e6;  // 50 ms a chunk.
  TestNode server(options);
  server.machine.opened = [](LinkId link, Outbox& out) {
    for (uint32_t mark = 0; mark < 5; ++mark) out.send(link, message_of_bytes(100'000 - 64, mark));
  };
  server.host->start();
  TestNode client;
  const auto start = std::chrono::steady_clock::now();
  client.host->start();
  dial(client, server.endpoint());
  REQUIRE(
      client.machine.wait_until([](const Story& story) { return messages_of(story).size() == 5; }));
  REQUIRE(std::chrono::steady_clock::now() - start >= milliseconds(4 * 50));
}

TEST_CASE("what a rehearsing host sends comes whole, in order and not too early") {
  // 30 ms, and 20 ms a message.
  TestNode server(rehearsing({.bytes_per_second = 5e6, .delay = milliseconds(30)}));
  server.machine.opened = [](LinkId link, Outbox& out) {
    for (uint32_t mark = 0; mark < 5; ++mark) out.send(link, message_of_bytes(100'000 - 64, mark));
    out.close(link);
    out.send(link, message_of_bytes(1, 5));
  };
  server.host->start();
  TestNode client;
  const auto start = std::chrono::steady_clock::now();
  client.host->start();
  const LinkId link = dial(client, server.endpoint());
  for (size_t count = 1; count <= 5; ++count) {
    REQUIRE(client.machine.wait_until(
        [&](const Story& story) { return messages_of(story).size() >= count; }));
    REQUIRE(std::chrono::steady_clock::now() - start >= milliseconds(30 + 20 * count));
  }
  REQUIRE(
      client.machine.wait_until([=](const Story& story) { return story.closed.contains(link); }));
  const std::vector<Message> received = messages_of(client.machine.story());
  REQUIRE(received.size() == 5);
  for (uint32_t mark = 0; mark < 5; ++mark) REQUIRE(received[mark].authority.chunk == mark);
  REQUIRE(server.machine.story().closed.empty());  // It closed the link itself.
}

TEST_CASE("what a rehearsing host receives is as slow, and ends after the last word") {
  TestNode server;
  server.machine.opened = [](LinkId link, Outbox& out) {
    for (uint32_t mark = 0; mark < 4; ++mark) out.send(link, message_of_bytes(100'000 - 64, mark));
    out.close(link);
  };
  server.host->start();
  TestNode client(rehearsing({.bytes_per_second = 5e6}));
  const auto start = std::chrono::steady_clock::now();
  client.host->start();
  const LinkId link = dial(client, server.endpoint());
  REQUIRE(
      client.machine.wait_until([=](const Story& story) { return story.closed.contains(link); }));
  REQUIRE(std::chrono::steady_clock::now() - start >= milliseconds(80));
  REQUIRE(messages_of(client.machine.story()).size() == 4);
  REQUIRE(client.machine.story().closed.at(link) == "closed by the other side");
}

TEST_CASE("a rehearsing host tells its machine when a full queue has drained") {
  constexpr uint32_t kChunks = 40;
  TestNode server(rehearsing({.bytes_per_second = 400e6, .delay = milliseconds(1)}));
  uint32_t next = 0;
  int64_t queued_max = 0;
  bool is_summed = true;
  const auto pump = [&](LinkId link, Outbox& out) {
    while (next < kChunks && out.queued_bytes(link) < kQueuedBytesMax) {
      out.send(link, message_of_bytes(1 << 20, next++));
      queued_max = std::max(queued_max, out.queued_bytes(link));
      is_summed &= out.all_queued_bytes() >= out.queued_bytes(link);
    }
  };
  server.machine.opened = server.machine.drained = pump;
  server.host->start();
  TestNode client;
  client.host->start();
  dial(client, server.endpoint());
  REQUIRE(client.machine.wait_until(
      [](const Story& story) { return messages_of(story).size() == kChunks; }));
  server.host.reset();
  REQUIRE(queued_max >= kQueuedBytesMax);  // Else drained was not tested.
  REQUIRE(is_summed);
  REQUIRE(!server.machine.story().was_reentered);
}

TEST_CASE("the end of a rehearsing host's job may send like any other call") {
  TestNode server;
  server.host->start();
  TestNode client(rehearsing({.delay = milliseconds(1)}));
  client.machine.start = [&](Outbox& out) {
    const LinkId link = out.connect(server.endpoint());
    out.start({.work = [] {},
               .done = [link](Instant, Outbox& later) { later.send(link, start_message(1)); }});
  };
  client.host->start();
  REQUIRE(
      server.machine.wait_until([](const Story& story) { return messages_of(story).size() == 1; }));
}

TEST_CASE("a host that ends lets go of what it holds") {
  TestNode server(rehearsing({.delay = std::chrono::hours(10)}));
  server.host->start();
  TestNode client;
  client.host->start();
  dial(client, server.endpoint());
  REQUIRE(server.machine.wait_until([](const Story& story) { return story.incoming.size() == 1; }));
  const LinkId link = server.machine.story().incoming[0];
  on_loop(*server.host, [=](Outbox& out) {
    out.send(link, message_of_bytes(10, 1));
    return 0;
  });
  server.host.reset();
  REQUIRE(
      client.machine.wait_until([](const Story& story) { return messages_of(story).size() == 1; }));
}

TEST_CASE("links are cut on both sides, and the next ones stand") {
  TestNode server;
  server.host->start();
  TestNode client(rehearsing({.cut_every = milliseconds(1)}));
  client.machine.closed = [&](LinkId, const std::string&, Outbox& out) {
    out.connect(server.endpoint());
  };
  client.host->start();
  const LinkId link = dial(client, server.endpoint());
  REQUIRE(client.machine.wait_until([](const Story& story) { return story.closed.size() >= 3; }));
  REQUIRE(client.machine.story().closed.at(link) == "cut by node.rehearse");
  REQUIRE(server.machine.wait_until([](const Story& story) { return story.closed.size() >= 2; }));
}
