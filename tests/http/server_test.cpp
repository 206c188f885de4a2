// The server against real sockets: what it answers, what it refuses, and that it ends.
#include "http/server.h"

#include <arpa/inet.h>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>

#include "base/error.h"
#include "base/json.h"
#include "support/catch.h"

namespace {

// A connection that says what it is told, byte by byte.
class Caller {
 public:
  explicit Caller(int port) : socket_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(uint16_t(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
  }
  ~Caller() { hang_up(); }
  Caller(const Caller&) = delete;
  Caller& operator=(const Caller&) = delete;

  // False: the server does not listen any more.
  bool say(std::string_view text) {
    while (!text.empty()) {
      const ssize_t sent = send(socket_, text.data(), text.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      text.remove_prefix(size_t(sent));
    }
    return true;
  }
  // Until the server closes, or `end` has come.
  std::string hear(std::string_view end = {}) {
    std::string heard;
    char buffer[4096];
    while (end.empty() || heard.find(end) == std::string::npos) {
      const ssize_t count = recv(socket_, buffer, sizeof(buffer), 0);
      if (count <= 0) break;
      heard.append(buffer, size_t(count));
    }
    return heard;
  }
  void hang_up() {
    if (socket_ >= 0) close(socket_);
    socket_ = -1;
  }

 private:
  int socket_;
};

std::string ask(int port, const std::string& request) {
  Caller caller(port);
  caller.say(request);
  return caller.hear();
}

std::string get(const std::string& path) {
  return "GET " + path + " HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n";
}

std::string post(const std::string& path, const std::string& body) {
  return "POST " + path + " HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Length: " +
         std::to_string(body.size()) + "\r\n\r\n" + body;
}

bool has_status(const std::string& answer, int status) {
  return answer.starts_with("HTTP/1.1 " + std::to_string(status) + " ");
}

std::unique_ptr<http::Server> echo_server(const http::ServerOptions& options = {}) {
  auto server = http::make_server(options);
  server->route("GET", "/a.b", [](const http::Request&) { return http::Answer{.body = "{}"}; });
  server->route("POST", "/echo", [](const http::Request& request) {
    return http::Answer{.type = "text/plain", .body = "<" + request.body + ">"};
  });
  server->route("GET", "/throw", [](const http::Request&) -> http::Answer {
    throw base::bad_input("as the test wished");
  });
  server->route("GET", "/parts", [](const http::Request&) {
    return http::Answer{.type = "text/plain", .stream = [](const http::Write& write) {
                          for (const char* part : {"one ", "two ", "three"}) write(part);
                        }};
  });
  server->start();
  return server;
}

}  // namespace

TEST_CASE("http: routes, and what there is none for") {
  const auto server = echo_server();
  REQUIRE(server->port() > 0);
  REQUIRE(server->url() == "http://127.0.0.1:" + std::to_string(server->port()));
  REQUIRE(has_status(ask(server->port(), get("/a.b")), 200));
  REQUIRE(has_status(ask(server->port(), get("/aXb")), 404));  // The path is no pattern.
  REQUIRE(has_status(ask(server->port(), get("/")), 404));
  REQUIRE(has_status(ask(server->port(), get("/echo")), 405));
  REQUIRE(has_status(ask(server->port(), post("/a.b", "x")), 405));
  const std::string echoed = ask(server->port(), post("/echo", "hello"));
  REQUIRE(has_status(echoed, 200));
  REQUIRE(echoed.ends_with("\r\n\r\n<hello>"));
}

TEST_CASE("http: errors are JSON of OpenAI's form") {
  const auto server = echo_server();
  const std::string answer = ask(server->port(), get("/nowhere"));
  const auto document =
      base::JsonValue::parse(std::string_view(answer).substr(answer.find("\r\n\r\n") + 4));
  REQUIRE(document.ok());
  const auto error = document->get("error");
  REQUIRE(error.ok());
  REQUIRE(*error->get("message")->as_string() == "there is no /nowhere");
  REQUIRE(*error->get("type")->as_string() == "invalid_request_error");
  REQUIRE(error->has("param"));
  REQUIRE(error->has("code"));
}

TEST_CASE("http: a handler that throws is a 500, and the server goes on") {
  const auto server = echo_server();
  const std::string answer = ask(server->port(), get("/throw"));
  REQUIRE(has_status(answer, 500));
  REQUIRE(answer.find("as the test wished") == std::string::npos);  // That is for the log.
  REQUIRE(has_status(ask(server->port(), get("/a.b")), 200));
}

TEST_CASE("http: an answer that comes in parts") {
  const auto server = echo_server();
  const std::string answer = ask(server->port(), get("/parts"));
  REQUIRE(has_status(answer, 200));
  for (const char* part : {"one ", "two ", "three"})
    REQUIRE(answer.find(part) != std::string::npos);
  REQUIRE(answer.ends_with("0\r\n\r\n"));
}

TEST_CASE("http: several requests on one connection") {
  const auto server = echo_server();
  Caller caller(server->port());
  for (int i = 0; i < 3; ++i) {
    const std::string body = std::to_string(i);
    REQUIRE(caller.say("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n" + body));
    REQUIRE(has_status(caller.hear("<" + body + ">"), 200));
  }
}

TEST_CASE("http: bodies beyond the limit, told and in chunks") {
  const auto server = echo_server({.body_bytes_max = 100});
  REQUIRE(has_status(ask(server->port(), post("/echo", std::string(100, 'x'))), 200));
  REQUIRE(has_status(ask(server->port(), post("/echo", std::string(101, 'x'))), 413));
  std::string chunks =
      "POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (int i = 0; i < 30; ++i) chunks += "a\r\n0123456789\r\n";
  REQUIRE(has_status(ask(server->port(), chunks + "0\r\n\r\n"), 413));
}

TEST_CASE("http: heads beyond the limit end the connection") {
  const auto server = echo_server({.header_bytes_max = 2000});
  std::string request = "GET /a.b HTTP/1.1\r\n";
  for (int i = 0; i < 500; ++i) request += "X-" + std::to_string(i) + ": y\r\n";
  REQUIRE_FALSE(has_status(ask(server->port(), request + "\r\n"), 200));
  REQUIRE(has_status(ask(server->port(), get("/a.b")), 200));
}

TEST_CASE("http: nonsense of many kinds leaves the server alive") {
  const auto server = echo_server(
      {.idle = std::chrono::milliseconds(50), .request = std::chrono::milliseconds(100)});
  const std::string zeros(1000, '\0');
  for (const std::string& nonsense :
       {std::string("\r\n\r\n"), std::string("hello\r\n\r\n"), zeros, std::string("GET"),
        std::string("GET /a.b HTTP/9.9\r\n\r\n"),
        "GET /" + std::string(20000, 'a') + " HTTP/1.1\r\n\r\n",
        std::string("POST /echo HTTP/1.1\r\nContent-Length: -5\r\n\r\n"),
        std::string("POST /echo HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\nabc"),
        std::string("POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        std::string(
            "POST /echo HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"),
        std::string("POST /echo HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=x\r\n"
                    "Content-Length: 4\r\n\r\n--x-"),
        std::string("GET /a.b HTTP/1.1\r\nRange: bytes=9999999999999999999999-\r\n\r\n"),
        std::string("GET /%00%ff HTTP/1.1\r\n\r\n")}) {
    INFO(nonsense.substr(0, 60));
    ask(server->port(), nonsense);
    REQUIRE(has_status(ask(server->port(), get("/a.b")), 200));
  }
}

TEST_CASE("http: who says nothing, or never comes to an end, is left") {
  const auto server = echo_server(
      {.idle = std::chrono::milliseconds(50), .request = std::chrono::milliseconds(100)});
  Caller silent(server->port());
  REQUIRE(silent.hear().empty());
  Caller slow(server->port());
  REQUIRE(slow.say("POST /echo HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc"));
  REQUIRE_FALSE(has_status(slow.hear(), 200));
}

TEST_CASE("http: a handler sees that its client is gone") {
  http::ServerOptions options;
  const auto server = http::make_server(options);
  std::atomic<bool> has_begun = false, saw_it = false;
  server->route("GET", "/wait", [&](const http::Request& request) {
    has_begun = true;
    while (!request.client.is_gone()) std::this_thread::yield();
    saw_it = true;
    return http::Answer{};
  });
  server->start();
  Caller caller(server->port());
  REQUIRE(caller.say("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n"));
  while (!has_begun) std::this_thread::yield();
  caller.hang_up();
  while (!saw_it) std::this_thread::yield();
}

TEST_CASE("http: stop ends those who wait, those who send, and those who are served") {
  const auto server = http::make_server({});
  std::atomic<bool> has_begun = false;
  server->route("GET", "/wait", [&](const http::Request& request) {
    has_begun = true;
    while (!request.client.is_gone()) std::this_thread::yield();
    return http::Answer{.body = "over"};
  });
  server->start();
  Caller idle(server->port()), half(server->port()), served(server->port());
  half.say("GET /wa");
  served.say("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
  while (!has_begun) std::this_thread::yield();
  server->stop();
  REQUIRE(idle.hear().empty());
  REQUIRE(served.hear().ends_with("over"));
  server->stop();  // Again, for nothing.
}

TEST_CASE("http: a port that is taken, and an address that is not ours, are bad input") {
  const auto server = http::make_server({});
  REQUIRE_THROWS_AS(http::make_server({.port = server->port()}), base::Error);
  REQUIRE_THROWS_AS(http::make_server({.address = "203.0.113.7"}), base::Error);
  REQUIRE_THROWS_AS(http::make_server({.address = "no such name"}), base::Error);
}
