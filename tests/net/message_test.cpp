// Every payload there and back; then every way to break one. A decoder may take broken bytes for a
// message only if that message, encoded, is those bytes again: so nothing is ignored, and no
// message has two spellings.
#include "net/message.h"

#include <cfloat>
#include <cmath>
#include <limits>

#include "net/sample_payloads.h"
#include "net/wire/wire.h"
#include "support/catch.h"

using namespace net;

namespace {

// Decodes anything; returns whether it was taken for a message.
bool survives(Recode recode, const std::vector<std::byte>& bytes) {
  const auto again = recode(bytes);
  if (!again.ok()) {
    REQUIRE(!again.reason().empty());
    return false;
  }
  REQUIRE(**again == bytes);
  return true;
}

template <class T>
bool is_refused(const std::vector<std::byte>& bytes) {
  return !survives(recode<T>, bytes);
}

// Writes fields by hand, to say what encode() would not.
template <class... Fields>
std::vector<std::byte> fields(const Fields&... values) {
  WireWriter wire;
  (wire.number(values), ...);
  return wire.finish();
}

std::vector<std::byte> joined(std::vector<std::byte> first, const std::vector<std::byte>& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

std::vector<std::byte> text_field(const std::string& text) {
  const auto bytes = std::as_bytes(std::span(text));
  return joined(fields(uint16_t(text.size())), {bytes.begin(), bytes.end()});
}

}  // namespace

TEST_CASE("every payload survives the wire") {
  for (const SamplePayload& one : sample_payloads()) {
    INFO(one.name);
    REQUIRE(survives(one.recode, *one.bytes));
  }
}

TEST_CASE("the largest messages are within the limit of control frames") {
  for (const SamplePayload& one :
       {sample("Open", largest_open()), sample("CatchUp", largest_catch_up()),
        sample("Hello", largest_hello())}) {
    INFO(one.name);
    REQUIRE(survives(one.recode, *one.bytes));
    REQUIRE(int64_t(one.bytes->size()) <= kControlBytesMax);
  }
  Reown all;
  for (uint32_t chunk = 0; chunk < 40 * 1024; ++chunk)
    all.moves.push_back({.chunk = chunk, .owner = 63});
  for (PeerId peer = 0; peer < kMembersMax; ++peer) all.excluded.push_back(peer);
  REQUIRE(int64_t(encode(all)->size()) <= kControlBytesMax);
}

TEST_CASE("fields arrive as they were sent") {
  const Hello hello = sample_hello();
  const auto read = decode<Hello>(*encode(hello));
  REQUIRE(read.ok());
  REQUIRE(read->protocol == hello.protocol);
  REQUIRE(read->node_key == hello.node_key);
  REQUIRE(read->node_name == hello.node_name);
  REQUIRE(read->config == hello.config);
  REQUIRE(read->listen == hello.listen);
  REQUIRE(read->step == hello.step);
  REQUIRE(read->samples == hello.samples);
  REQUIRE(read->states == hello.states);

  const auto open = decode<Open>(*encode(sample_open()));
  REQUIRE(open.ok());
  REQUIRE(open->contributors.size() == 2);
  REQUIRE(open->contributors[1].peer == 5);
  REQUIRE(open->contributors[1].weight_tokens == 1);
  REQUIRE(open->contributors[1].data == Endpoint{"2001:db8::1", 65535});
  REQUIRE(open->owners == std::vector<uint8_t>{0, 1, 1, 0});
  REQUIRE(open->step == 500);
  REQUIRE(open->plan == PlanKind::kRing);
  REQUIRE(open->places == std::vector<uint8_t>{1, 0});
  REQUIRE(open->estimated_ms == 1500);

  const auto ready = decode<Ready>(*encode(Ready{.weight_tokens = -1, .step = 8}));
  REQUIRE(ready.ok());
  REQUIRE(ready->weight_tokens == -1);
  REQUIRE(ready->step == 8);
}

TEST_CASE("moves arrive in the order of their chunks") {
  const Reown reown{.excluded = {1, 4},
                    .moves = {{.chunk = 700, .owner = 3}, {.chunk = 2, .owner = 0}}};
  const auto read = decode<Reown>(*encode(reown));
  REQUIRE(read.ok());
  REQUIRE(read->excluded == reown.excluded);
  REQUIRE(read->moves.size() == 2);
  REQUIRE(read->moves[0].chunk == 2);
  REQUIRE(read->moves[0].owner == 0);
  REQUIRE(read->moves[1].chunk == 700);
  REQUIRE(read->moves[1].owner == 3);
}

TEST_CASE("the bytes of a message are the documented ones") {
  const auto bytes = encode(Ready{.weight_tokens = -2, .step = 0x0102});
  auto expected = fields(uint8_t(0xfe), uint8_t(0xff), uint8_t(0xff), uint8_t(0xff), uint8_t(0xff),
                         uint8_t(0xff), uint8_t(0xff), uint8_t(0xff), uint8_t(2), uint8_t(1),
                         uint8_t(0), uint8_t(0), uint8_t(0), uint8_t(0), uint8_t(0), uint8_t(0));
  expected.resize(expected.size() + sizeof(base::Digest));  // The root of what is not frozen.
  REQUIRE(*bytes == expected);
}

TEST_CASE("a message that was cut or has a tail is refused") {
  for (const SamplePayload& one : sample_payloads()) {
    INFO(one.name);
    for (size_t byte_count = 0; byte_count < one.bytes->size(); ++byte_count) {
      INFO("cut to " << byte_count << " bytes");
      const std::vector<std::byte> cut(one.bytes->begin(),
                                       one.bytes->begin() + ptrdiff_t(byte_count));
      REQUIRE(!one.recode(cut).ok());
    }
    REQUIRE(!one.recode(joined(*one.bytes, {std::byte(0)})).ok());
  }
}

TEST_CASE("random damage gives a failure or another message") {
  const uint64_t seed = 20240811;
  INFO("seed " << seed);
  base::Random random(seed);
  int64_t taken = 0;
  int64_t refused = 0;
  for (const SamplePayload& one : sample_payloads()) {
    INFO(one.name);
    if (one.bytes->empty()) continue;  // There is nothing to damage.
    for (int attempt = 0; attempt < 1500; ++attempt) {
      std::vector<std::byte> bytes = *one.bytes;
      for (uint64_t i = 0; i <= random.below(4); ++i) {
        bytes[size_t(random.below(bytes.size()))] = std::byte(uint8_t(random.next_u64()));
      }
      survives(one.recode, bytes) ? ++taken : ++refused;
    }
  }
  // Both happen often: else the test would test nothing.
  REQUIRE(taken > 1000);
  REQUIRE(refused > 1000);
}

TEST_CASE("garbage of any length is no message, or exactly one") {
  const uint64_t seed = 77;
  INFO("seed " << seed);
  base::Random random(seed);
  for (const Recode recode : all_recodes()) {
    for (int attempt = 0; attempt < 1000; ++attempt) {
      std::vector<std::byte> bytes(size_t(random.below(100)));
      for (std::byte& byte : bytes) byte = std::byte(uint8_t(random.next_u64()));
      survives(recode, bytes);
    }
  }
}

TEST_CASE("lists beyond their limit are refused before they are allocated") {
  // Four bytes that promise four billion entries.
  REQUIRE(is_refused<Synced>(fields(uint32_t(0xffffffff))));
  REQUIRE(is_refused<Membership>(fields(uint32_t(0xffffffff))));
  REQUIRE(is_refused<Open>(fields(uint32_t(0), uint32_t(0xffffffff))));
  // One more than allowed, and all of them there.
  std::vector<std::byte> excluded = fields(uint32_t(65));
  for (uint32_t i = 0; i < 65; ++i) excluded = joined(excluded, fields(i % 64));
  REQUIRE(is_refused<Reown>(joined(excluded, fields(uint32_t(0)))));
  const auto electorate = fields(uint32_t(0), uint64_t(0));
  const auto two = joined(fields(uint32_t(0), uint32_t(2)), joined(electorate, electorate));
  REQUIRE(!is_refused<Membership>(two));
  REQUIRE(is_refused<Membership>(joined(fields(uint32_t(0), uint32_t(3)),
                                        joined(electorate, joined(electorate, electorate)))));
}

TEST_CASE("values that no peer can mean are refused") {
  REQUIRE(is_refused<DataHello>(fields(kNobody)));
  REQUIRE(is_refused<DataHello>(fields(PeerId(64))));
  REQUIRE(is_refused<Want>(fields(uint8_t(0))));
  REQUIRE(!is_refused<Want>(fields(uint8_t(7))));
  REQUIRE(is_refused<Want>(fields(uint8_t(8))));
  REQUIRE(is_refused<Welcome>(fields(PeerId(1), uint32_t(0), uint32_t(1))));
  const std::vector<std::byte> root(sizeof(base::Digest));
  for (const int64_t weight :
       {std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::min()}) {
    REQUIRE(is_refused<Ready>(joined(fields(weight, uint64_t(0)), root)));
  }
  REQUIRE(!is_refused<Ready>(joined(fields(int64_t(1), uint64_t(0)), root)));
  REQUIRE(is_refused<NeedSamples>(fields(uint64_t(0))));
  REQUIRE(is_refused<NeedSamples>(fields(kSamplesAskedMax + 1)));
  REQUIRE(is_refused<Start>(fields(uint64_t(1), kSamplesMax + 1)));
  REQUIRE(is_refused<Samples>(fields(uint64_t(1), kSamplesAskedMax + 1)));
  REQUIRE(is_refused<Samples>(fields(kSamplesMax - 4, uint64_t(5))));
  REQUIRE(!is_refused<Samples>(fields(kSamplesMax - 5, uint64_t(5))));
  for (const uint32_t bits : {0x7f800000u, 0xff800000u, 0x7fc00000u}) {  // Infinities and a NaN.
    REQUIRE(is_refused<Heartbeat>(fields(uint64_t(0), bits, uint64_t(0), uint64_t(0))));
  }
}

TEST_CASE("rounds whose owners, order or weights contradict each other are refused") {
  const auto contributor = [](PeerId peer, int64_t weight_tokens) {
    const std::vector<std::byte> root(sizeof(base::Digest));
    return joined(fields(peer, weight_tokens, uint16_t(0), uint16_t(7000), uint64_t(0)), root);
  };
  const auto open = [&](const std::vector<std::byte>& first, const std::vector<std::byte>& second,
                        uint8_t owner) {
    const auto head = joined(joined(fields(uint32_t(2)), first), second);
    return joined(head,
                  fields(uint32_t(1), owner, uint64_t(0), uint8_t(0), uint32_t(0), uint32_t(0)));
  };
  REQUIRE(!is_refused<Open>(open(contributor(1, 5), contributor(2, 5), 1)));
  REQUIRE(!is_refused<Open>(open(contributor(1, 0), contributor(2, 0), 1)));
  REQUIRE(is_refused<Open>(open(contributor(1, 5), contributor(2, 5), 2)));
  REQUIRE(is_refused<Open>(open(contributor(2, 5), contributor(1, 5), 1)));
  REQUIRE(is_refused<Open>(open(contributor(1, 5), contributor(1, 5), 1)));
  REQUIRE(is_refused<Open>(open(contributor(1, 5), contributor(2, 0), 1)));
  REQUIRE(is_refused<Open>(open(contributor(1, 5), contributor(2, -5), 1)));
}

TEST_CASE("plans whose places contradict each other are refused") {
  const auto is_possible = [](PlanKind plan, std::vector<uint8_t> places) {
    Open open{.contributors = {{.peer = 1}, {.peer = 2}, {.peer = 3}}, .owners = {0}};
    WireWriter wire;
    wire.number(plan);
    wire.list(places, kMembersMax, [](auto& list, uint8_t& place) { list.number(place); });
    wire.number(uint32_t(1500));
    const auto whole = encode(open);
    const auto tail = wire.finish();
    constexpr size_t kDirectTail = 1 + 4 + 4;
    std::vector<std::byte> bytes(whole->begin(), whole->end() - int64_t(kDirectTail));
    bytes.insert(bytes.end(), tail.begin(), tail.end());
    return !is_refused<Open>(bytes);
  };
  REQUIRE(is_possible(PlanKind::kDirect, {}));
  REQUIRE(!is_possible(PlanKind::kDirect, {0, 0, 0}));
  REQUIRE(is_possible(PlanKind::kTwoLevel, {0, 1, 0}));
  REQUIRE(!is_possible(PlanKind::kTwoLevel, {0, 1}));
  REQUIRE(!is_possible(PlanKind::kTwoLevel, {1, 0, 0}));
  REQUIRE(!is_possible(PlanKind::kTwoLevel, {0, 2, 1}));
  REQUIRE(is_possible(PlanKind::kRing, {2, 0, 1}));
  REQUIRE(!is_possible(PlanKind::kRing, {2, 0, 0}));
  REQUIRE(!is_possible(PlanKind::kRing, {3, 0, 1}));
  REQUIRE(!is_possible(PlanKind(3), {0, 1, 2}));
}

TEST_CASE("moves have one spelling") {
  const auto reown = [](uint8_t first, uint8_t last) {
    return fields(uint32_t(0), uint32_t(2), first, last);
  };
  REQUIRE(!is_refused<Reown>(reown(255, 63)));
  REQUIRE(is_refused<Reown>(reown(255, 64)));
  REQUIRE(is_refused<Reown>(reown(63, 255)));  // The shorter list says the same.
}

TEST_CASE("texts that could break a log or a terminal are refused") {
  const auto leave = [](const std::string& text) { return text_field(text); };
  REQUIRE(!is_refused<Leave>(leave("sch\u00f6n \u5317\u4eac \U0001F600")));
  REQUIRE(is_refused<Leave>(leave(std::string(1025, 'a'))));
  REQUIRE(is_refused<Leave>(leave("two\nlines")));
  REQUIRE(is_refused<Leave>(leave("\x1b[2J")));
  REQUIRE(is_refused<Leave>(leave(std::string(1, '\0'))));
  REQUIRE(is_refused<Leave>(leave("\xc2\x9b")));          // A control character of two bytes.
  REQUIRE(is_refused<Leave>(leave("\xc0\xaf")));          // A longer form of '/'.
  REQUIRE(is_refused<Leave>(leave("\xed\xa0\x80")));      // A surrogate.
  REQUIRE(is_refused<Leave>(leave("\xf4\x90\x80\x80")));  // Beyond Unicode.
  REQUIRE(is_refused<Leave>(leave("\xf8\x88\x80\x80\x80")));
  REQUIRE(is_refused<Leave>(leave("\xe5\x8c")));  // Half a character.
  REQUIRE(is_refused<Leave>(leave("\x80")));
}

TEST_CASE("what we say ourselves is made fit to be sent") {
  const auto said = [](const std::string& reason) { return decode<Leave>(*encode(Leave{reason})); };
  REQUIRE(said("disk\nfull \xff")->reason == "disk?full ?");
  REQUIRE(said(std::string(2000, 'a'))->reason == std::string(1024, 'a'));
  REQUIRE(said(std::string(1023, 'a') + "\u00f8")->reason == std::string(1023, 'a'));

  // A run that diverges stays connected, so that people can see it.
  for (const float loss : {INFINITY, -INFINITY, NAN}) {
    REQUIRE(decode<Heartbeat>(*encode(Heartbeat{.loss = loss}))->loss == FLT_MAX);
  }
}

TEST_CASE("addresses are read as people write them") {
  REQUIRE(*parse_endpoint("node.example:7000") == Endpoint{"node.example", 7000});
  REQUIRE(*parse_endpoint("[2001:db8::1]:1") == Endpoint{"2001:db8::1", 1});
  REQUIRE(*parse_endpoint("0.0.0.0:0") == Endpoint{"0.0.0.0", 0});
  REQUIRE(Endpoint{"2001:db8::1", 1}.text() == "[2001:db8::1]:1");
  REQUIRE(Endpoint{"node.example", 7000}.text() == "node.example:7000");
  for (const char* text :
       {"", ":", ":7000", "host", "host:", "host:65536", "host:-1", "host:7x", "host: 7",
        "::1:7000", "[host]:7000", "[]:7", "[::1]", "ho st:7", "host\n:7"}) {
    INFO(text);
    REQUIRE(!parse_endpoint(text).ok());
  }
  REQUIRE(!parse_endpoint(std::string(254, 'a') + ":7").ok());
}
