// What is in httplib.h stays in this file and connection.h.
#include "http/server.h"

#include <atomic>
#include <httplib.h>
#include <map>
#include <mutex>
#include <set>
#include <sys/resource.h>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "base/thread.h"
#include "http/connection.h"

namespace http {
namespace {

bool is_loopback(const std::string& address) {
  return address == "localhost" || address == "::1" || address.starts_with("127.");
}

std::string reason_of(std::exception_ptr error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& known) {
    return known.what();
  } catch (...) {
    return "an unknown exception";
  }
}

// cpp-httplib's server over our connections.
class HttpServer final : public httplib::Server {
 public:
  explicit HttpServer(const ServerOptions& options) : options_(options) {
    new_task_queue = [this] { return new httplib::ThreadPool(size_t(options_.connections)); };
    set_tcp_nodelay(true);
    // Its own choice is SO_REUSEPORT, with which two servers share a port and nobody is told.
    set_socket_options([](socket_t socket) {
      const int on = 1;
      setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    });
  }

  // Those who wait for a request, and those who send one, see the end of the connection.
  void close_connections() {
    std::lock_guard lock(mutex_);
    is_stopping_ = true;
    for (const int socket : sockets_) shutdown(socket, SHUT_RD);
  }

  // Of the thread's request in work.
  static const Client& client() { return *current_; }

 private:
  bool process_and_close_socket(socket_t socket) override {
    {
      std::lock_guard lock(mutex_);
      sockets_.insert(socket);
    }
    {
      Connection connection(socket, options_, is_stopping_);
      current_ = &connection;
      bool is_closed = false;
      while (!is_closed && connection.await_request()) {
        if (!process_request(connection, is_stopping_, is_closed, nullptr)) break;
      }
      current_ = nullptr;
    }
    std::lock_guard lock(mutex_);
    sockets_.erase(socket);
    shutdown(socket, SHUT_RDWR);
    close(socket);
    return true;
  }

  const ServerOptions options_;
  std::atomic<bool> is_stopping_ = false;
  std::mutex mutex_;
  std::set<int> sockets_;
  static thread_local Connection* current_;
};

thread_local Connection* HttpServer::current_ = nullptr;

class RoutingServer final : public Server {
 public:
  explicit RoutingServer(const ServerOptions& options) : options_(options), server_(options) {
    server_.set_pre_routing_handler(
        [this](const httplib::Request& request, httplib::Response& response) {
          return refuse_early(request, response) ? httplib::Server::HandlerResponse::Handled
                                                 : httplib::Server::HandlerResponse::Unhandled;
        });
    server_.set_exception_handler([this](const httplib::Request& request,
                                         httplib::Response& response, std::exception_ptr error) {
      base::log_error("{} {}: {}", request.method, request.path, reason_of(error));
      send(error_answer_(500, "the server failed; its log says why"), response);
    });
    // What cpp-httplib refuses by itself: lines that are no HTTP, and so on.
    server_.set_error_handler([this](const httplib::Request&, httplib::Response& response) {
      if (response.body.empty())
        send(error_answer_(response.status, "the request cannot be read"), response);
    });
    port_ = options.port == 0
                ? server_.bind_to_any_port(options.address.c_str())
                : (server_.bind_to_port(options.address.c_str(), options.port) ? options.port : -1);
    if (port_ > 0) return;
    throw base::bad_input(
        fmt::format("cannot listen on {} port {}", options.address, options.port),
        "another process may have the port, or the address is not of this machine; port 0 takes a "
        "free one");
  }
  ~RoutingServer() override { stop(); }

  void route(const std::string& method, const std::string& path, Handler handler) override {
    handlers_[path][method] = std::move(handler);
  }
  void set_error_answer(ErrorAnswer answer) override { error_answer_ = std::move(answer); }

  int port() const override { return port_; }
  std::string url() const override {
    const bool is_six = options_.address.find(':') != std::string::npos;
    const std::string host = is_six ? "[" + options_.address + "]" : options_.address;
    return fmt::format("http://{}:{}", host, port_);
  }

  void start() override {
    for (const auto& [path, methods] : handlers_) {
      for (const auto& [method, handler] : methods) {
        if (method == "GET") {
          server_.Get(path, [this, handler = handler](const httplib::Request& request,
                                                      httplib::Response& response) {
            answer(handler, request, {}, response);
          });
        } else {
          CHECK(method == "POST", "no {} here", method);
          server_.Post(path, [this, handler = handler](const httplib::Request& request,
                                                       httplib::Response& response,
                                                       const httplib::ContentReader& reader) {
            std::string body;
            if (read_body(reader, body, response)) answer(handler, request, body, response);
          });
        }
      }
    }
    if (!is_loopback(options_.address)) {
      base::log_warning("{} is open to whoever can reach this machine: there is no password",
                        url());
    }
    thread_ = std::thread([this] {
      base::set_thread_name("http");
      if (options_.is_background)
        setpriority(PRIO_PROCESS, 0, 19);  // Of this thread, and of those it makes.
      server_.listen_after_bind();
    });
    // Until then stop() would not stop it; cpp-httplib has no event for it.
    while (!server_.is_running()) std::this_thread::yield();
  }

  void stop() override {
    server_.close_connections();
    server_.stop();
    if (thread_.joinable()) thread_.join();
  }

 private:
  // Before the body is read: what nobody will answer. The connection ends with it, as its body
  // would be taken for the next request.
  bool refuse_early(const httplib::Request& request, httplib::Response& response) {
    const auto path = handlers_.find(request.path);
    const std::string method = request.method == "HEAD" ? "GET" : request.method;
    int status = 0;
    std::string message;
    if (path == handlers_.end()) {
      status = 404;
      message = fmt::format("there is no {}", printable(request.path));
    } else if (!path->second.contains(method)) {
      status = 405;
      message = fmt::format("{} does not take {}", request.path, printable(request.method));
    } else if (request.is_multipart_form_data()) {
      status = 415;
      message = "the body must be JSON";
    } else {
      return false;
    }
    send(error_answer_(status, message), response);
    response.set_header("Connection", "close");
    return true;
  }

  // Up to some hundred letters that are safe to repeat.
  static std::string printable(const std::string& text) {
    std::string result;
    for (const char c : text.substr(0, 200)) result += c >= ' ' && c <= '~' ? c : '?';
    return result;
  }

  bool read_body(const httplib::ContentReader& reader, std::string& body,
                 httplib::Response& response) {
    bool is_too_long = false;
    const bool is_whole = reader([&](const char* data, size_t size) {
      is_too_long = int64_t(body.size() + size) > options_.body_bytes_max;
      if (is_too_long) return false;
      body.append(data, size);
      return true;
    });
    if (is_whole && !is_too_long) return true;
    response.set_header("Connection", "close");
    send(is_too_long ? error_answer_(413, fmt::format("the body has more than {} bytes",
                                                      options_.body_bytes_max))
                     : error_answer_(400, "the body ended before its time"),
         response);
    return false;
  }

  static void answer(const Handler& handler, const httplib::Request& request,
                     const std::string& body, httplib::Response& response) {
    send(handler({.method = request.method,
                  .path = request.path,
                  .body = body,
                  .client = HttpServer::client()}),
         response);
  }

  static void send(Answer answer, httplib::Response& response) {
    response.status = answer.status;
    if (!answer.stream) return response.set_content(answer.body, answer.type.c_str());
    response.set_chunked_content_provider(
        answer.type.c_str(), [stream = std::move(answer.stream)](size_t, httplib::DataSink& sink) {
          const Client& client = HttpServer::client();
          stream([&](std::string_view part) {
            return !client.is_gone() && sink.is_writable() && sink.write(part.data(), part.size());
          });
          sink.done();
          return true;
        });
  }

  const ServerOptions options_;
  HttpServer server_;
  std::map<std::string, std::map<std::string, Handler>> handlers_;
  ErrorAnswer error_answer_ = [](int status, const std::string& message) {
    return json_error(status, message);
  };
  int port_ = -1;
  std::thread thread_;
};

}  // namespace

std::unique_ptr<Server> make_server(const ServerOptions& options) {
  return std::make_unique<RoutingServer>(options);
}

}  // namespace http
