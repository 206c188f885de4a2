#include "base/json.h"
#include "http/server.h"

namespace http {

Answer json_error(int status, const std::string& message, const std::string& parameter) {
  base::JsonWriter out;
  out.begin_object().key("error").begin_object().field("message", message);
  out.field("type", status >= 500 ? "server_error" : "invalid_request_error").key("param");
  parameter.empty() ? out.null() : out.value(parameter);
  out.key("code").null().end_object().end_object();
  return {.status = status, .body = out.text()};
}

}  // namespace http
