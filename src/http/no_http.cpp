// Where this program is built without cpp-httplib.
#include "base/error.h"
#include "http/server.h"

namespace http {

std::unique_ptr<Server> make_server(const ServerOptions&) {
  throw base::bad_input("this program was built without HTTP",
                        "build it without -Dstatic_libraries=true, with libcpp-httplib-dev there");
}

}  // namespace http
