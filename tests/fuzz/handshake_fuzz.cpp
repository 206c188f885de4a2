// Fuzz target for what strangers can say before they have proved anything, and for the files of
// keys. What must hold, besides that nothing crashes: nobody gets in by chance, what a session
// answers to a stranger is short, and what a parser takes for a key is written as that key again.
//
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -Iinclude -Isrc -Itests
//     tests/fuzz/handshake_fuzz.cpp src/net/security/*.cpp src/base/{error,hash}.cpp
//     -lfmt -lssl -lcrypto -o handshake_fuzz
//   ./handshake_fuzz
//
// The first byte of an input selects: 0 what a server hears, 1 what a client hears, 2 a node's key
// file, 3 a secret, 4 a list. Sessions make random numbers of their own, so the same input may take
// another path.
#include <algorithm>
#include <span>
#include <string>

#include "base/error.h"
#include "fuzz/target.h"
#include "net/security/tls_session.h"
#include "net/security_rig.h"

namespace net {
namespace {

// A flight of ours and an alert.
constexpr size_t kAnswerBytesMax = 2048;

void check_handshake(TlsSession::Role role, std::span<const std::byte> bytes) {
  static const TlsContext context(*with_secret(1));
  size_t sent_bytes = 0;
  TlsSession session(context, role,
                     [&](std::span<const std::byte> sent) { sent_bytes += sent.size(); });
  auto stands = session.handshake();
  const size_t piece_bytes = 1 + bytes.size() / 3;
  while (!bytes.empty() && stands.ok()) {
    const auto piece = bytes.first(std::min(piece_bytes, bytes.size()));
    bytes = bytes.subspan(piece.size());
    session.receive(piece);
    stands = session.handshake();
    CHECK(!stands.ok() || !*stands);
  }
  CHECK(sent_bytes <= kAnswerBytesMax, "{}", sent_bytes);
}

void check_list(const std::string& text) {
  const auto keys = parse_allowed_keys(text);
  if (!keys.ok()) return;
  std::string again;
  for (AllowedKey key : *keys) again += key.id.text() + " " + key.name + "\n";
  const auto parsed = parse_allowed_keys(again);
  CHECK(parsed.ok() && parsed->size() == keys->size());
}

void check_input(std::span<const std::byte> input) {
  if (input.empty()) return;
  const auto bytes = input.subspan(1);
  const std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  switch (int(input[0])) {
    case 0:
      return check_handshake(TlsSession::Role::kServer, bytes);
    case 1:
      return check_handshake(TlsSession::Role::kClient, bytes);
    case 2:
      if (const auto key = parse_node_key(text); key.ok())
        CHECK(parse_node_key(key->file_text())->seed() == key->seed());
      return;
    case 3:
      if (const auto secret = parse_run_secret(text); secret.ok())
        CHECK(parse_run_secret(secret->file_text())->file_text() == secret->file_text());
      return;
    case 4:
      return check_list(text);
    default:
      return;
  }
}

FuzzInput bytes_of(const std::string& text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

// Both sides of a handshake that works, as they were said.
std::pair<FuzzInput, FuzzInput> said_in_a_handshake() {
  const TlsContext client_context(*with_secret(2)), server_context(*with_secret(1));
  FuzzInput from_client, from_server;
  const auto into = [](FuzzInput& said) {
    return
        [&](std::span<const std::byte> sent) { said.insert(said.end(), sent.begin(), sent.end()); };
  };
  TlsSession client(client_context, TlsSession::Role::kClient, into(from_client));
  TlsSession server(server_context, TlsSession::Role::kServer, into(from_server));
  CHECK(client.handshake().ok());
  const size_t hello_bytes = from_client.size();
  server.receive(from_client);
  CHECK(server.handshake().ok());
  client.receive(from_server);
  CHECK(*client.handshake());
  server.receive(std::span<const std::byte>(from_client).subspan(hello_bytes));
  CHECK(*server.handshake());
  return {from_client, from_server};
}

}  // namespace
}  // namespace net

std::vector<FuzzInput> valid_fuzz_inputs() {
  const auto [client, server] = net::said_in_a_handshake();
  const std::string list = net::node_key(1).id().text() + " a\n" + net::node_key(2).id().text() +
                           " b until 2030-01-31 # comment\n";
  return {with_selector(0, client), with_selector(1, server),
          with_selector(2, net::bytes_of(net::node_key(3).file_text())),
          with_selector(3, net::bytes_of(net::RunSecret(net::key_bytes(4)).file_text())),
          with_selector(4, net::bytes_of(list))};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t byte_count) {
  net::check_input(std::as_bytes(std::span(data, byte_count)));
  return 0;
}
