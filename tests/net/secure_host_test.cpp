// Hosts whose links are secured, and strangers at their doors.
#include <deque>

#include "base/hash.h"
#include "net/host_steps.h"
#include "net/parse_frames.h"
#include "net/security/tls_session.h"
#include "net/security_rig.h"

using namespace net;
using Story = ScriptedMachine::Story;

namespace {

HostOptions secured(std::shared_ptr<const Security> security) {
  HostOptions options;
  options.security = std::move(security);
  return options;
}

// A TCP connection that is not ours, and what became of it.
void require_no_effect(TestNode& server, std::span<const std::byte> bytes) {
  PlainSocket stranger;
  REQUIRE(stranger.connect(server.endpoint().port));
  REQUIRE(stranger.send(bytes));
  REQUIRE(stranger.is_closed_by_peer());
}

}  // namespace

TEST_CASE("secure host: both machines hear whose key the other side has") {
  TestNode server(secured(with_secret(1))), client(secured(with_secret(2)));
  server.host->start();
  client.host->start();
  const LinkId link = dial(client, server.endpoint());
  require_works(client, link, server, 5);
  REQUIRE(client.machine.story().nodes.at(link) == node_key(1).id());
  const Story story = server.machine.story();
  REQUIRE(story.nodes.at(story.incoming[0]) == node_key(2).id());
}

TEST_CASE("secure host: a plain node and a secured one do not talk, whoever dials") {
  TestNode plain, secure(secured(with_secret(1)));
  plain.host->start();
  secure.host->start();
  const auto end_of = [](TestNode& from, TestNode& to) {
    const LinkId link = on_loop(*from.host, [&](Outbox& out) {
      const LinkId dialled = out.connect(to.endpoint());
      out.send(dialled, start_message(1));
      return dialled;
    });
    REQUIRE(from.machine.wait_until([=](const Story& s) { return s.closed.contains(link); }));
    return from.machine.story().closed.at(link);
  };
  (void)end_of(plain, secure);
  REQUIRE(contains(end_of(secure, plain), "does it speak TLS?"));
  REQUIRE(plain.machine.wait_until([](const Story& s) { return s.closed.size() == 2; }));
  const Story story = plain.machine.story();
  REQUIRE(contains(story.closed.at(story.incoming[0]), "it speaks TLS, and we do not"));
  REQUIRE(secure.machine.story().received.empty());
  REQUIRE(plain.machine.story().received.empty());
  REQUIRE(secure.machine.story().incoming.empty());
}

TEST_CASE("secure host: who is refused hears why, and the machine nothing") {
  TestNode server(secured(with_secret(1, 200))), stranger(secured(with_secret(2, 201)));
  server.host->start();
  // It would talk if it were let.
  stranger.machine.opened = [](LinkId link, Outbox& out) { out.send(link, start_message(3)); };
  stranger.host->start();
  const LinkId link =
      on_loop(*stranger.host, [&](Outbox& out) { return out.connect(server.endpoint()); });
  REQUIRE(stranger.machine.wait_until([=](const Story& s) { return s.closed.contains(link); }));
  REQUIRE(stranger.machine.story().closed.at(link) == "it has another run secret");
  REQUIRE(server.machine.story().incoming.empty());
  REQUIRE(server.machine.story().closed.empty());
}

TEST_CASE("secure host: a key that is taken from the list loses its links, and only it") {
  const auto allowed = allowing({2, 3});
  TestNode server(secured(with_keys(1, allowed)));
  TestNode removed(secured(with_keys(2, allowing({1})))),
      kept(secured(with_keys(3, allowing({1}))));
  for (TestNode* node : {&server, &removed, &kept}) node->host->start();
  const LinkId old = dial(removed, server.endpoint());
  require_works(removed, old, server, 1);
  const LinkId other = dial(kept, server.endpoint());
  require_works(kept, other, server, 2);
  const LinkId outgoing = dial(server, removed.endpoint());

  allowed->set({node_key(3).id()});
  REQUIRE(removed.machine.wait_until([=](const Story& s) { return s.closed.contains(old); }));
  REQUIRE(server.machine.wait_until([=](const Story& s) { return s.closed.size() == 2; }));
  const Story story = server.machine.story();
  REQUIRE(story.closed.at(outgoing) == "its key is not on the list of the run any more");
  require_works(kept, other, server, 3);
  // And it does not come back.
  const LinkId again =
      on_loop(*removed.host, [&](Outbox& out) { return out.connect(server.endpoint()); });
  REQUIRE(removed.machine.wait_until([=](const Story& s) { return s.closed.contains(again); }));
  REQUIRE(contains(removed.machine.story().closed.at(again), "our key is not on its list"));
}

TEST_CASE("secure host: strangers that send garbage, nothing or too much are closed") {
  HostOptions options = secured(with_secret(1));
  options.first_frame_timeout = std::chrono::milliseconds(200);
  TestNode server(options);
  server.host->start();
  const std::vector<std::byte> garbage(100, std::byte('x'));
  require_no_effect(server, garbage);
  require_no_effect(server, frame_of(start_message(1)));
  require_no_effect(server, {});
  // A record that is longer than all that a stranger may send: 0x16 is a handshake, 0x0303 TLS.
  std::vector<std::byte> endless(4000, std::byte(0));
  const std::array<uint8_t, 9> start = {0x16, 3, 1, 0x3f, 0xff, 1, 0, 0x3f, 0xfb};
  std::ranges::transform(start, endless.begin(), [](uint8_t byte) { return std::byte(byte); });
  require_no_effect(server, endless);
  REQUIRE(server.machine.story().incoming.empty());
  REQUIRE(server.host->bytes_received() <= 4 * 1024);
}

TEST_CASE("secure host: a thousand idle connections keep nobody out") {
  HostOptions options = secured(with_secret(1));
  options.half_open_max = 8;
  options.first_frame_timeout = kTestPatience;
  TestNode server(options), client(secured(with_secret(2)));
  server.host->start();
  client.host->start();
  std::deque<PlainSocket> idle;
  for (int i = 0; i < 200; ++i) REQUIRE(idle.emplace_back().connect(server.endpoint().port));
  const LinkId link = dial(client, server.endpoint());
  require_works(client, link, server, 1);
  REQUIRE(idle.front().is_closed_by_peer());  // The oldest went.
  REQUIRE(server.machine.story().incoming.size() == 1);
}

namespace {

// A client of TLS whose bytes a test sends by hand.
class HandClient {
 public:
  HandClient(const std::shared_ptr<const Security>& security, uint16_t port)
      : context_(*security),
        session_(context_, TlsSession::Role::kClient, [this](std::span<const std::byte> bytes) {
          unsent.insert(unsent.end(), bytes.begin(), bytes.end());
        }) {
    REQUIRE(socket.connect(port));
    REQUIRE(session_.handshake().ok());
  }
  // All but the last `kept_back` bytes of what it has to say.
  void send(size_t kept_back = 0) {
    const size_t count = unsent.size() - kept_back;
    REQUIRE(socket.send(std::span(unsent).first(count)));
    unsent.erase(unsent.begin(), unsent.begin() + ptrdiff_t(count));
  }
  // Until it has heard enough to have its last word of the handshake ready.
  void hear() {
    for (bool stands = false; !stands;) {
      const auto bytes = socket.receive();
      REQUIRE(!bytes.empty());
      session_.receive(bytes);
      const auto result = session_.handshake();
      REQUIRE(result.ok());
      stands = *result;
    }
  }

  PlainSocket socket;
  std::vector<std::byte> unsent;

 private:
  TlsContext context_;
  TlsSession session_;
};

}  // namespace

TEST_CASE("secure host: a key that is taken from the list in the middle of a handshake is out") {
  const auto allowed = allowing({2});
  TestNode server(secured(with_keys(1, allowed)));
  server.host->start();
  HandClient client(with_keys(2, allowing({1})), server.endpoint().port);
  client.send();
  client.hear();
  client.send(1);  // Its certificate and all that is signed with it, but not the end.
  on_loop(*server.host, [](Outbox&) { return 0; });
  allowed->set({});
  // Until the host has held its links against the list.
  const int64_t ticks = server.machine.story().ticks;
  REQUIRE(server.machine.wait_until([=](const Story& s) { return s.ticks > ticks + 1; }));
  client.send();
  REQUIRE(client.socket.is_closed_by_peer());
  REQUIRE(server.machine.story().incoming.empty());
}

TEST_CASE("secure host: a link that was refused can be closed, and the host stopped") {
  // It answers nothing that is TLS, and then says nothing more.
  PlainListener deaf;
  TestNode node(secured(with_secret(1)));
  node.host->start();
  const LinkId link = on_loop(*node.host, [&](Outbox& out) {
    return out.connect({"127.0.0.1", deaf.port()});
  });
  PlainSocket& answering = deaf.accept();
  const std::vector<std::byte> banner(100, std::byte('S'));
  REQUIRE(answering.send(banner));
  REQUIRE(answering.is_shut_by_peer());  // It was refused.
  SECTION("closed by the machine") {
    on_loop(*node.host, [=](Outbox& out) {
      out.close(link);
      return 0;
    });
  }
  SECTION("at the end of the host") {}
  SECTION("an accepted one at the end of the host") {
    PlainSocket stranger;
    REQUIRE(stranger.connect(node.endpoint().port));
    REQUIRE(stranger.send(banner));
    REQUIRE(stranger.is_shut_by_peer());
    node.host.reset();
    return;
  }
  node.host.reset();
}
