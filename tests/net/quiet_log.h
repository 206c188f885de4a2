// Tests that let members die are not to fill the screen with it. ATOLL_LOG=1 shows the log.
#pragma once

#include <cstdlib>

#include "base/log.h"

namespace net {

inline void quiet_log() {
  const bool is_loud = std::getenv("ATOLL_LOG") != nullptr;
  base::configure_log({.prefix = "",
                       .file = "",
                       .stderr_level = is_loud ? base::LogLevel::kInfo : base::LogLevel::kError});
}

}  // namespace net
