// The thread that computes: it takes prompts of all requests, as many at a time as the decoder has
// sequences, and lets them grow together. Requests take turns: one with many prompts does not hold
// up another with one.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "model/decoder.h"
#include "train/serve/generation.h"

namespace train {

// A request in work. Everything is guarded by the scheduler's mutex, except what its maker keeps.
struct ServedRequest {
  CompletionRequest asked;
  std::vector<std::unique_ptr<Generation>> generations;  // Of each prompt.
  size_t started = 0, finished = 0;                      // Of them.
  bool is_abandoned = false;  // Nobody waits for it: it is dropped at the next step.
  std::string failure;        // Not empty: it ended without an answer.

  bool is_done() const { return finished == generations.size() || !failure.empty(); }
};

class Scheduler {
 public:
  struct Options {
    int64_t sequences = 1;
    int64_t batch_rows = 256;
    int64_t queue = 1024;  // Prompts that wait.
  };
  // Makes the decoder on the thread that will use it, and calls it there alone. What making it
  // throws is thrown here.
  using MakeDecoder = std::function<std::shared_ptr<model::Decoder>()>;
  Scheduler(const Options& options, const MakeDecoder& make_decoder);
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // False: too many wait already.
  bool submit(const std::shared_ptr<ServedRequest>& request);
  // Calls look(request) whenever it may have changed, and at least every tenth of a second, until
  // it returns true. No step is made meanwhile: it is short.
  void watch(ServedRequest& request, const std::function<bool(const ServedRequest&)>& look);
  void abandon(ServedRequest& request);

 private:
  // A sequence of the decoder in use.
  struct Running {
    std::shared_ptr<ServedRequest> request;
    Generation* generation = nullptr;
    int64_t appended = 0;  // Of its ids.
  };

  void run(const MakeDecoder& make_decoder);
  void admit();
  void drop_abandoned_sequences();
  void drop_abandoned_prompts();
  std::vector<model::Decoder::Piece> next_pieces() const;
  void step();
  void retire_finished();
  void fail_all(const std::string& reason);

  const Options options_;
  std::mutex mutex_;
  std::condition_variable work_, progress_;
  bool is_stopping_ = false, is_ready_ = false;
  std::exception_ptr start_error_;
  std::string broken_;                                 // Why nothing can be computed any more.
  std::list<std::shared_ptr<ServedRequest>> waiting_;  // With prompts that were not started.
  int64_t waiting_prompts_ = 0;
  std::vector<Running> running_;  // By sequence; free ones have no request.
  std::shared_ptr<model::Decoder> decoder_;
  std::thread thread_;
};

}  // namespace train
