// Two sessions whose ciphertext is passed on by hand.
#include "net/security/tls_session.h"

#include <deque>
#include <optional>

#include "base/hash.h"
#include "net/security_rig.h"
#include "support/catch.h"

using namespace net;
using Role = TlsSession::Role;

namespace {

using ByteVector = std::vector<std::byte>;

struct End {
  TlsContext context;
  ByteVector sent;  // And not yet passed on.
  TlsSession session;
  ByteVector unread;  // That came after the session stood.
  int64_t bytes_sent = 0;
  std::optional<std::string> failure;
  bool stands = false;

  End(const std::shared_ptr<const Security>& security, Role role)
      : context(*security), session(context, role, [this](std::span<const std::byte> bytes) {
          sent.insert(sent.end(), bytes.begin(), bytes.end());
          bytes_sent += int64_t(bytes.size());
        }) {}

  void go_on() {
    if (stands || failure) return;
    const auto result = session.handshake();
    if (!result.ok()) {
      failure = result.reason();
    } else {
      stands = *result;
    }
  }
  // In pieces of at most so many bytes.
  void take(const ByteVector& bytes, size_t piece) {
    for (size_t at = 0; at < bytes.size(); at += piece) {
      const size_t count = std::min(piece, bytes.size() - at);
      if (stands) unread.insert(unread.end(), bytes.begin() + at, bytes.begin() + at + count);
      if (stands) continue;
      session.receive(std::span(bytes).subspan(at, count));
      go_on();
    }
  }
};

struct Pair {
  End client, server;
  Pair(const std::shared_ptr<const Security>& c, const std::shared_ptr<const Security>& s)
      : client(c, Role::kClient), server(s, Role::kServer) {}

  void shake_hands(size_t piece = 1 << 20) {
    client.go_on();
    while (!client.sent.empty() || !server.sent.empty()) {
      server.take(std::exchange(client.sent, {}), piece);
      client.take(std::exchange(server.sent, {}), piece);
    }
  }
};

ByteVector random_bytes(size_t count, uint64_t seed) {
  base::Random random(seed);
  ByteVector bytes(count);
  for (std::byte& byte : bytes) byte = std::byte(uint8_t(random.next_u64()));
  return bytes;
}

void write_all(TlsSession& session, std::span<const std::byte> plain) {
  while (!plain.empty()) {
    const auto count = session.write(plain);
    REQUIRE(count.ok());
    REQUIRE(*count > 0);
    plain = plain.subspan(size_t(*count));
  }
}

ByteVector read_all(TlsSession& session, std::span<const std::byte> ciphertext, size_t piece) {
  ByteVector plain;
  std::array<std::byte, 5000> buffer;
  for (; !ciphertext.empty(); ciphertext = ciphertext.subspan(std::min(piece, ciphertext.size()))) {
    session.receive(ciphertext.first(std::min(piece, ciphertext.size())));
    for (;;) {
      const auto count = session.read(buffer);
      REQUIRE(count.ok());
      if (*count == 0) break;
      plain.insert(plain.end(), buffer.begin(), buffer.begin() + *count);
    }
  }
  return plain;
}

}  // namespace

TEST_CASE("tls: who has the secret is let in, and both know whose key the other has") {
  const auto piece = GENERATE(size_t{1}, size_t{100}, size_t{1} << 20);
  Pair pair(with_secret(1), with_secret(2));
  pair.shake_hands(piece);
  REQUIRE((pair.client.stands && pair.server.stands));
  REQUIRE(pair.client.session.peer() == node_key(2).id());
  REQUIRE(pair.server.session.peer() == node_key(1).id());
  // What a host lets a stranger send.
  REQUIRE(pair.client.bytes_sent <= 1024);
}

TEST_CASE("tls: bytes come out as they went in, however they are cut, and not to be read between") {
  const auto piece = GENERATE(size_t{1}, size_t{1000}, size_t{1} << 20);
  Pair pair(with_secret(1), with_secret(2));
  pair.shake_hands();
  const ByteVector plain = random_bytes(100'000, 5);
  write_all(pair.client.session, plain);
  const ByteVector ciphertext = std::exchange(pair.client.sent, {});
  REQUIRE(ciphertext.size() > plain.size());
  REQUIRE(std::ranges::search(ciphertext, std::span(plain).first(16)).empty());
  const bool is_same = read_all(pair.server.session, ciphertext, piece) == plain;
  REQUIRE(is_same);
  // And back.
  write_all(pair.server.session, plain);
  const bool is_back = read_all(pair.client.session, pair.server.sent, piece) == plain;
  REQUIRE(is_back);
  REQUIRE(!pair.client.session.is_closed_by_peer());
  pair.server.sent.clear();
  pair.server.session.close();
  REQUIRE(read_all(pair.client.session, pair.server.sent, piece).empty());
  REQUIRE(pair.client.session.is_closed_by_peer());
}

TEST_CASE("tls: a byte that was changed on the way ends the session") {
  Pair pair(with_secret(1), with_secret(2));
  pair.shake_hands();
  write_all(pair.client.session, random_bytes(100, 1));
  pair.client.sent[50] ^= std::byte(1);
  pair.server.session.receive(pair.client.sent);
  std::array<std::byte, 200> buffer;
  REQUIRE(!pair.server.session.read(buffer).ok());
}

TEST_CASE("tls: what was said once is worth nothing a second time") {
  End client(with_secret(1), Role::kClient);
  End server(with_secret(2), Role::kServer);
  ByteVector said;
  client.go_on();
  while (!client.stands || !server.stands) {
    const ByteVector bytes = std::exchange(client.sent, {});
    said.insert(said.end(), bytes.begin(), bytes.end());
    server.take(bytes, 1 << 20);
    client.take(std::exchange(server.sent, {}), 1 << 20);
  }
  End again(with_secret(2), Role::kServer);
  again.take(said, 1 << 20);
  REQUIRE(!again.stands);
  REQUIRE(again.failure.has_value());
}

TEST_CASE("tls: another secret is refused by both, and both say so") {
  Pair pair(with_secret(1, 200), with_secret(2, 201));
  pair.shake_hands();
  REQUIRE(!pair.client.stands);
  REQUIRE(!pair.server.stands);
  REQUIRE(pair.client.failure == "it has another run secret");
  REQUIRE(pair.server.failure == "it does not take us: its run secret is not ours");
}

TEST_CASE("tls: another run is refused, with the same secret") {
  Pair pair(with_secret(1, 200, "one"), with_secret(2, 200, "another"));
  pair.shake_hands();
  REQUIRE(!pair.server.stands);
  REQUIRE(pair.client.failure == "it belongs to another run");
  REQUIRE(pair.server.failure == "it belongs to another run");
}

TEST_CASE("tls: keys are let in by the list") {
  Pair pair(with_keys(1, allowing({2})), with_keys(2, allowing({1, 3})));
  pair.shake_hands();
  REQUIRE((pair.client.stands && pair.server.stands));
  REQUIRE(pair.client.session.peer() == node_key(2).id());
  REQUIRE(pair.server.session.peer() == node_key(1).id());

  Pair stranger(with_keys(4, allowing({2})), with_keys(2, allowing({1, 3})));
  stranger.shake_hands();
  REQUIRE(!stranger.server.stands);
  REQUIRE(stranger.server.failure ==
          "its key " + node_key(4).id().text() + " is not on the list of the run");
  // It could believe in the connection until it heard the answer.
  REQUIRE(stranger.client.stands);
  std::array<std::byte, 100> buffer;
  stranger.client.session.receive(stranger.client.unread);
  const auto read = stranger.client.session.read(buffer);
  REQUIRE(!read.ok());
  REQUIRE(read.reason() == "it does not take us: our key is not on its list");

  Pair impostor(with_keys(1, allowing({2})), with_keys(5, allowing({1})));
  impostor.shake_hands();
  REQUIRE(!impostor.client.stands);
  REQUIRE(!impostor.server.stands);
  REQUIRE(impostor.server.failure == "it does not take us: our key is not on its list");
}

TEST_CASE("tls: a secret and a list do not mix") {
  Pair pair(with_keys(1, allowing({2})), with_secret(2));
  pair.shake_hands();
  REQUIRE(!pair.server.stands);
  Pair other(with_secret(1), with_keys(2, allowing({1})));
  other.shake_hands();
  REQUIRE(!other.client.stands);
}

namespace {

// A node made of OpenSSL alone, by what docs/formats/wire.md says.
struct RawNode {
  TlsSettings settings{SSL_CTX_new(TLS_method())};
  TlsState ssl;
  BIO* in = BIO_new(BIO_s_mem());
  BIO* out = BIO_new(BIO_s_mem());

  RawNode() {
    const NodeKey key = node_key(1);
    const NodeKey signer = RunSecret(key_bytes(200)).signer("a run");
    REQUIRE(SSL_CTX_use_certificate(settings.get(), make_certificate(key, signer).get()) == 1);
    REQUIRE(SSL_CTX_use_PrivateKey(settings.get(), private_key(key).get()) == 1);
    ssl.reset(SSL_new(settings.get()));
    SSL_set_bio(ssl.get(), in, out);
    const std::string name = "a run";
    const std::string protocol =
        "atoll/1 " + base::sha256(std::as_bytes(std::span(name))).hex().substr(0, 32);
    const std::string wire = char(protocol.size()) + protocol;
    const auto* bytes = reinterpret_cast<const unsigned char*>(wire.data());
    REQUIRE(SSL_set_alpn_protos(ssl.get(), bytes, unsigned(wire.size())) == 0);
    SSL_set_connect_state(ssl.get());
  }
  ByteVector said() {
    ByteVector bytes(size_t(BIO_ctrl_pending(out)));
    if (!bytes.empty()) BIO_read(out, bytes.data(), int(bytes.size()));
    return bytes;
  }
  void hear(const ByteVector& bytes) { BIO_write(in, bytes.data(), int(bytes.size())); }
};

}  // namespace

TEST_CASE("tls: another program that follows the format is let in, and out if it changes keys") {
  RawNode client;
  End server(with_secret(2), Role::kServer);
  SSL_do_handshake(client.ssl.get());
  server.take(client.said(), 1 << 20);
  client.hear(std::exchange(server.sent, {}));
  REQUIRE(SSL_do_handshake(client.ssl.get()) == 1);
  server.take(client.said(), 1 << 20);
  REQUIRE(server.stands);
  REQUIRE(server.session.peer() == node_key(1).id());

  REQUIRE(SSL_write(client.ssl.get(), "words", 5) == 5);
  REQUIRE(read_all(server.session, client.said(), 1 << 20).size() == 5);
  REQUIRE(SSL_key_update(client.ssl.get(), SSL_KEY_UPDATE_NOT_REQUESTED) == 1);
  REQUIRE(SSL_write(client.ssl.get(), "words", 5) == 5);
  const ByteVector said = client.said();
  server.session.receive(said);
  std::array<std::byte, 100> buffer;
  const auto read = server.session.read(buffer);
  REQUIRE(!read.ok());
  REQUIRE(read.reason() == "it goes on shaking hands after it has been let in");
}

TEST_CASE("tls: what is no TLS is told so") {
  End server(with_secret(2), Role::kServer);
  const ByteVector bytes(100, std::byte('A'));
  server.take(bytes, 1 << 20);
  REQUIRE(server.failure == "it does not speak TLS");
}

TEST_CASE("tls: random bytes at any point of a handshake end it, or wait for more") {
  for (uint64_t seed = 0; seed < 300; ++seed) {
    INFO("seed " << seed);
    base::Random random(seed);
    Pair pair(with_secret(1), with_secret(2));
    pair.client.go_on();
    ByteVector bytes = std::exchange(pair.client.sent, {});
    for (uint64_t i = 0, count = 1 + random.below(4); i < count; ++i)
      bytes[random.below(bytes.size())] = std::byte(uint8_t(random.next_u64()));
    if (random.below(2) == 0) bytes.resize(random.below(bytes.size()) + 1);
    const ByteVector more = random_bytes(random.below(300), seed);
    bytes.insert(bytes.end(), more.begin(), more.end());
    pair.server.take(bytes, 1 + random.below(200));
    REQUIRE(!pair.server.stands);
  }
}
