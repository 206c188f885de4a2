#include "net/admission.h"

#include <algorithm>
#include <span>

#include "net/turn.h"
#include "net/wire.h"

namespace net {

base::Result<Hello> read_hello(const Message& message, const CoordinatorOptions& options) {
  if (message.run != run_hash(options.run_name)) {
    return base::Failure{
        fmt::format("this is the coordinator of run '{}', not of yours", options.run_name)};
  }
  if (message.type != MessageType::kHello) return base::Failure{"the first message is not a Hello"};
  // In all versions it is the first field; the rest may look different.
  uint32_t protocol = kProtocolVersion;
  const std::span<const std::byte> bytes(*message.payload);
  WireReader(bytes.first(std::min(bytes.size(), sizeof(protocol)))).number(protocol);
  if (protocol != kProtocolVersion) {
    return base::Failure{fmt::format("you speak protocol version {}, this run speaks version {}",
                                     protocol, kProtocolVersion)};
  }
  return decode<Hello>(bytes);
}

base::Result<void> may_join(const Hello& hello, const CoordinatorOptions& options,
                            const Roster& roster) {
  if (hello.config != options.config) {
    return base::Failure{fmt::format("your configuration has the digest {}, the run's is {}",
                                     hello.config.hex().substr(0, 12),
                                     options.config.hex().substr(0, 12))};
  }
  if (int64_t(hello.states.size()) != options.fragment_count) {
    return base::Failure{fmt::format("you have {} fragments, the run has {}", hello.states.size(),
                                     options.fragment_count)};
  }
  if (!roster.has_node(hello.node_key) && roster.count() >= kMembersMax) {
    return base::Failure{fmt::format("the run is full: it has {} members", kMembersMax)};
  }
  return {};
}

}  // namespace net
