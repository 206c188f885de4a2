// What cannot be brought about through a host: a name with several addresses.
#include "net/transport/link.h"

#include <optional>

#include "net/scripted_machine.h"
#include "net/transport/address.h"
#include "support/catch.h"

using namespace net;

namespace {

// Runs a loop until its one link stands or has ended.
struct OneLink : LinkObserver {
  std::optional<Endpoint> remote;
  std::optional<std::string> end;

  void link_opened(LinkId, const Remote& other) override { remote = other.endpoint; }
  void link_received(LinkId, Message) override {}
  void link_drained(LinkId) override {}
  void link_ended(LinkId, const std::string& reason) override { end = reason; }

  void dial(const std::vector<Endpoint>& endpoints) {
    std::vector<sockaddr_storage> addresses;
    for (const Endpoint& endpoint : endpoints) addresses.push_back(*numeric_address(endpoint));
    uv_loop_t loop;
    REQUIRE(uv_loop_init(&loop) == 0);
    {
      LinkContext context{.loop = &loop,
                          .observer = this,
                          .dial_timeout = kTestPatience,
                          .queued_bytes_hard_max = kQueuedBytesMax};
      Link link(context, 1, Link::Origin::kDialled);
      link.dial({"several.example", 1}, addresses);
      while (!remote && !end) uv_run(&loop, UV_RUN_ONCE);
    }
    uv_run(&loop, UV_RUN_DEFAULT);  // Until what the link left behind is gone.
    REQUIRE(uv_loop_close(&loop) == 0);
  }
};

}  // namespace

TEST_CASE("all addresses of a name are tried in order") {
  PlainSocket nobody;
  const Endpoint refusing{"127.0.0.1", nobody.bind_to_free_port()};
  const TestNode node;
  const TestNode another;

  OneLink first;
  first.dial({refusing, refusing, node.endpoint(), another.endpoint()});
  REQUIRE(first.remote == node.endpoint());
  REQUIRE(!first.end);

  OneLink second;
  second.dial({refusing, refusing});
  REQUIRE(!second.remote);
  REQUIRE(second.end == "cannot connect to several.example:1: connection refused");
}
