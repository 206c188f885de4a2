// Hands a message's payload to whoever deals with it, if it is one.
#pragma once

#include <type_traits>

#include "net/message.h"

namespace net {

// Calls `handle` with the payload. Fails if it cannot be decoded, or if handle() fails.
template <class T, class Handle>
base::Result<void> dispatch(const Message& message, Handle handle) {
  const auto payload = decode<T>(*message.payload);
  if (!payload.ok()) return base::Failure{payload.reason()};
  if constexpr (std::is_void_v<decltype(handle(*payload))>) {
    handle(*payload);
    return {};
  } else {
    return handle(*payload);
  }
}

}  // namespace net
