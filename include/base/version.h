// Of this program.
#pragma once

namespace base {

const char* version();  // "0.1.0"

}  // namespace base
