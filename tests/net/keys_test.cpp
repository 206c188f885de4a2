#include "net/keys.h"

#include "net/security_rig.h"
#include "support/catch.h"

using namespace net;

TEST_CASE("keys: the public half is that of RFC 8032, and its number is of its hash") {
  // RFC 8032, section 7.1, TEST 1.
  const auto seed =
      parse_node_id("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
  REQUIRE(seed.ok());
  const NodeKey key(seed->bytes);
  REQUIRE(key.id().text() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
  // sha256sum of these 32 bytes begins with 21fe31dfa154a261.
  REQUIRE(key.id().number() == 0x61a254a1df31fe21);
}

TEST_CASE("keys: texts come back as they were") {
  const NodeKey key = NodeKey::make();
  const auto read = parse_node_key(key.file_text());
  REQUIRE(read.ok());
  REQUIRE(read->seed() == key.seed());
  REQUIRE(key.file_text().find(key.id().text()) != std::string::npos);
  REQUIRE(NodeKey::make().seed() != key.seed());

  const RunSecret secret(key_bytes(7));
  const auto again = parse_run_secret(secret.file_text());
  REQUIRE(again.ok());
  REQUIRE(again->file_text() == secret.file_text());
  const auto from_environment = parse_run_secret(" " + std::string(64, '7') + "\n");
  REQUIRE(from_environment.ok());
  REQUIRE(from_environment->file_text() == RunSecret(key_bytes(0x77)).file_text());
}

TEST_CASE("keys: what is no key or secret is refused, and not quoted") {
  const std::string digits(64, 'a');
  for (const std::string& text :
       {std::string(), std::string("atoll-node-key"), "atoll-node-key " + digits.substr(1),
        "atoll-node-key " + digits + "a", "atoll-node-key " + digits.substr(1) + "g",
        "atoll-node-key -" + digits.substr(1), "atoll-run-secret " + digits,
        "atoll-node-key " + digits + " more", digits}) {
    INFO(text);
    const auto key = parse_node_key(text);
    REQUIRE(!key.ok());
    REQUIRE(key.reason().find("aaa") == std::string::npos);
  }
  for (const std::string& text :
       {std::string(), "atoll-node-key " + digits, "atoll-run-secret " + digits.substr(1),
        digits + digits, digits.substr(2), digits + " " + digits}) {
    INFO(text);
    REQUIRE(!parse_run_secret(text).ok());
  }
}

TEST_CASE("keys: a secret signs with another key in every run") {
  const RunSecret secret(key_bytes(7));
  REQUIRE(secret.signer("a").seed() == secret.signer("a").seed());
  REQUIRE(secret.signer("a").seed() != secret.signer("b").seed());
  REQUIRE(secret.signer("a").seed() != RunSecret(key_bytes(8)).signer("a").seed());
  // echo -en 'atoll run signer 1\na' | openssl dgst -sha256 -mac HMAC -macopt hexkey:0707...07
  const NodeId seed{secret.signer("a").seed()};
  REQUIRE(seed.text() == "e84ac5eab6b4335c35397363b17657733932223d537fe2708cc209ffa1e3f955");
}

TEST_CASE("keys: a list has names, comments and last days") {
  const std::string a = node_key(1).id().text(), b = node_key(2).id().text();
  const auto list =
      parse_allowed_keys("# a comment\n\n" + a + " anna\n" + b + "  ben until 2026-12-31 # paid\n");
  REQUIRE(list.ok());
  REQUIRE(*list ==
          std::vector<AllowedKey>{{.id = node_key(1).id(), .name = "anna", .until = 0},
                                  // date -u -d 2027-01-01 +%s
                                  {.id = node_key(2).id(), .name = "ben", .until = 1798761600}});
  REQUIRE(parse_allowed_keys("")->empty());

  const auto reason = [](const std::string& text) { return parse_allowed_keys(text).reason(); };
  REQUIRE(reason(a + "\n") == "line 1: after the key there is no name");
  REQUIRE(reason("\nanna " + a) == "line 2: it does not begin with a key of 64 hexadecimal digits");
  REQUIRE(reason(a + " anna\n" + a + " ben") == "line 2: a key that stands there already");
  for (const char* rest : {" anna until", " anna until 2026-13-01", " anna until 2026-02-30",
                           " anna until 2026-01-01x", " anna ben", " anna for 2026-01-01"}) {
    INFO(rest);
    REQUIRE(reason(a + rest).find("until YYYY-MM-DD") != std::string::npos);
  }
  REQUIRE(reason(a + " " + std::string(65, 'n')) == "line 1: a name of 65 bytes; 64 fit");
}

TEST_CASE("keys: those for which anybody can sign are none") {
  // y = 0, 1, p - 1 and an order of 8, with both signs of x, and 1 as p + 1.
  for (const std::string& text :
       {std::string(64, '0'), std::string(62, '0') + "80", "01" + std::string(62, '0'),
        "ec" + std::string(60, 'f') + "7f", "ee" + std::string(60, 'f') + "ff",
        std::string("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85")}) {
    INFO(text);
    REQUIRE(parse_node_id(text).reason() == "a key for which anybody can sign");
    REQUIRE(parse_allowed_keys(text + " anna").reason() ==
            "line 1: a key for which anybody can sign");
  }
  REQUIRE(!node_key(1).id().is_weak());
}

TEST_CASE("keys: a file of another kind is named, and a byte order mark is nothing") {
  const std::string secret = RunSecret(key_bytes(7)).file_text();
  const std::string key = node_key(7).file_text();
  REQUIRE(parse_node_key(secret).reason() == "it is the secret of a run");
  REQUIRE(parse_run_secret(key).reason() == "it is the key of a node");
  REQUIRE(parse_run_secret("\xef\xbb\xbf" + secret).ok());
  REQUIRE(parse_run_secret("atoll-run-secret " + std::string(64, 'a') + " \r\n").ok());
}

TEST_CASE("keys: too many are refused") {
  std::string text;
  for (int64_t i = 0; i <= kAllowedKeysMax; ++i) {
    NodeId id;
    id.bytes[0] = uint8_t(i);
    id.bytes[1] = uint8_t(i >> 8);
    id.bytes[2] = 1;
    text += id.text() + " node\n";
    if (i < kAllowedKeysMax) REQUIRE(parse_allowed_keys(text).ok());
  }
  REQUIRE(parse_allowed_keys(text).reason() == "line 1025: more than 1024 keys");
}

TEST_CASE("keys: the generation of what is allowed rises with every change") {
  AllowedKeys allowed;
  const NodeId a = node_key(1).id(), b = node_key(2).id();
  REQUIRE(!allowed.contains(a));
  const uint64_t first = allowed.generation();
  allowed.set({b, a});
  REQUIRE((allowed.contains(a) && allowed.contains(b)));
  REQUIRE(allowed.generation() == first + 1);
  allowed.set({a, b});
  REQUIRE(allowed.generation() == first + 1);
  allowed.set({b});
  REQUIRE((!allowed.contains(a) && allowed.contains(b)));
  REQUIRE(allowed.generation() == first + 2);
}
