// Every payload, there and back; then every way to break one. A decoder may call broken bytes a message only if encoding that
// message gives the same bytes again: so nothing is ignored, and nothing has two spellings.
#include "net/message.h"

#include <cfloat>
#include <cmath>
#include <functional>
#include <limits>

#include "net/wire.h"
#include "net/messages.h"
#undef CHECK
#include "support/catch.h"

using namespace net;

TEST_CASE("every payload survives the wire") {
  for (const Sample& sample : sample_payloads()) {
    INFO(sample.name);
    const auto again = sample.recode(*sample.bytes);
    REQUIRE(again.ok());
    REQUIRE(**again == *sample.bytes);
    REQUIRE(int64_t(sample.bytes->size()) <= kControlBytesMax);
  }
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
  REQUIRE(read->states == hello.states);

  const Heartbeat heartbeat{.step = 7, .loss = 2.5f, .progress = 9, .waiting_for = 1ull << 63};
  const auto beat = decode<Heartbeat>(*encode(heartbeat));
  REQUIRE(beat.ok());
  REQUIRE(beat->step == 7);
  REQUIRE(beat->loss == 2.5f);
  REQUIRE(beat->progress == 9);
  REQUIRE(beat->waiting_for == 1ull << 63);
}
