// Who may be a member: what a stranger says first, and why it may not be enough.
#pragma once

#include "net/coordinator.h"
#include "net/roster.h"

namespace net {

// The Hello in a stranger's first message. A failure is a sentence for the person whose node it is.
base::Result<Hello> read_hello(const Message& message, const CoordinatorOptions& options);

base::Result<void> may_join(const Hello& hello, const CoordinatorOptions& options,
                            const Roster& roster);

}  // namespace net
