// A small HTTP/1.1 server: routes, limits, and answers that may come bit by bit. What is served
// stands elsewhere. cpp-httplib parses and writes; what it does not bound is bounded here.
//
// Threads: each connection that has a request has one, of as many as ServerOptions says; handlers
// run there, several at a time. Everything else is for one thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace http {

struct ServerOptions {
  std::string address =
      "127.0.0.1";       // A name or a number; "0.0.0.0": whoever can reach the machine.
  int port = 0;          // 0: one that is free.
  int connections = 64;  // At a time; others wait.
  int64_t header_bytes_max = 64 << 10;
  int64_t body_bytes_max = 16 << 20;          // After decompression.
  std::chrono::milliseconds idle{5'000};      // Between the requests of a connection.
  std::chrono::milliseconds request{30'000};  // From a request's first byte to its last.
  std::chrono::milliseconds write{10'000};    // That a client may take nothing.
  // Its threads run only where nothing else wants the processors (nice 19).
  bool is_background = false;
};

// The other end of a request.
class Client {
 public:
  virtual ~Client() = default;
  // It has closed its connection, or the server is stopping: nobody waits for the answer.
  virtual bool is_gone() const = 0;
};

struct Request {
  std::string method, path;
  std::string body;
  const Client& client;  // As long as the handler, or the body of its answer, runs.
};

// Takes the parts of an answer. False: nobody listens any more.
using Write = std::function<bool(std::string_view part)>;

struct Answer {
  int status = 200;
  std::string type = "application/json";
  std::string body = {};
  // Instead of `body`: called once, writes parts as they come, and returns at the end.
  std::function<void(const Write&)> stream = nullptr;
};

class Server {
 public:
  using Handler = std::function<Answer(const Request&)>;
  virtual ~Server() = default;

  // Before start(). The path is taken literally. What a handler throws becomes status 500, and a
  // line in the log.
  virtual void route(const std::string& method, const std::string& path, Handler handler) = 0;
  // What other paths (404), other methods (405) and requests beyond the limits (400, 413, 415) get;
  // without it, json_error(). Before start().
  using ErrorAnswer = std::function<Answer(int status, const std::string& message)>;
  virtual void set_error_answer(ErrorAnswer answer) = 0;

  virtual int port() const = 0;         // Also where 0 was asked for.
  virtual std::string url() const = 0;  // "http://127.0.0.1:8000"
  virtual void start() = 0;             // Returns; requests are served from here on.
  // No new requests; what handlers still write is written. Waits for them: they see that their
  // clients are gone.
  virtual void stop() = 0;
};

// Binds the port; connections wait until start(). Warns in the log if the address is not this
// machine's own. Throws bad_input where it cannot be had, and where this program was built without
// HTTP.
std::unique_ptr<Server> make_server(const ServerOptions& options);

// {"error": {"message": ..., "type": ..., "param": ..., "code": ...}}, as OpenAI's API has it. An
// empty `parameter` is null.
Answer json_error(int status, const std::string& message, const std::string& parameter = {});

}  // namespace http
