// `atoll serve`: a checkpoint's model over HTTP, in the form of OpenAI's completions API, to the
// degree that its clients and lm-evaluation-harness need. docs/serving.md has it all.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/file.h"

namespace train {

struct ServeOptions {
  std::string checkpoint;  // A checkpoint's folder, or a run directory (then the newest).
  std::string tokenizer;   // As data.tokenizer; empty: the checkpoint's.
  std::string address = "127.0.0.1";
  int64_t port = 8000;       // 0: one that is free.
  int64_t context = 0;       // Tokens of prompt and completion together; 0: as the model's rows.
  int64_t sequences = 8;     // Written side by side; their keys and values are allocated at once.
  int64_t batch_rows = 256;  // Tokens of prompts computed together.
  int64_t queue = 1024;      // Prompts that may wait; beyond it requests get status 503.
  int64_t threads = 0;
  std::string device = "auto";
};

// Serves until `stop_requested`. `on_listening` hears where, once requests are taken. Throws
// bad_input for what makes no server.
void serve_checkpoint(base::Storage& storage, const ServeOptions& options,
                      const std::function<bool()>& stop_requested,
                      const std::function<void(const std::string& url)>& on_listening);

}  // namespace train
