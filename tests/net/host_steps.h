// What the tests of the host have in common: short messages, and steps that must succeed.
#pragma once

#include <algorithm>
#include <future>
#include <string>
#include <vector>

#include "net/scripted_machine.h"
#include "support/catch.h"

namespace net {

inline Message message_of(MessageType type, Bytes payload, uint32_t chunk = 0) {
  return {.type = type,
          .run = 1,
          .source = 2,
          .authority = {.chunk = chunk},
          .payload = std::move(payload)};
}

inline Message start_message(uint64_t step) {
  return message_of(MessageType::kStart, encode(Start{step}));
}

inline uint64_t step_of(const Message& message) {
  return decode<Start>(*message.payload)->step;
}

inline bool contains(const std::string& text, const std::string& part) {
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
inline LinkId dial(TestNode& from, const Endpoint& target) {
  const LinkId link = on_loop(*from.host, [=](Outbox& out) { return out.connect(target); });
  REQUIRE(from.machine.wait_until(
      [=](const ScriptedMachine::Story& story) { return story.remotes.contains(link); }));
  return link;
}

inline std::vector<Message> messages_of(const ScriptedMachine::Story& story) {
  std::vector<Message> all;
  for (const auto& [link, messages] : story.received)
    all.insert(all.end(), messages.begin(), messages.end());
  return all;
}

// Sends a step over `link` and waits until the other side has it.
inline void require_works(TestNode& from, LinkId link, TestNode& to, uint64_t step) {
  from.host->post([=](Instant, Outbox& out) { out.send(link, start_message(step)); });
  REQUIRE(to.machine.wait_until([=](const ScriptedMachine::Story& story) {
    return std::ranges::any_of(messages_of(story),
                               [=](const Message& m) { return step_of(m) == step; });
  }));
}

}  // namespace net
