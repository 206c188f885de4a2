#define CATCH_CONFIG_MAIN
#include "support/catch.h"

// What ThreadSanitizer asks for its settings. libuv keeps its workers as long as the process lives,
// and run_in_child() may come after a test that used them: children may start threads all the same.
extern "C" [[gnu::visibility("default")]] const char* __tsan_default_options();
extern "C" const char* __tsan_default_options() {
  return "die_after_fork=0";
}
