#include "net/incident.h"

namespace net {

const char* name_of(Incident::Kind kind) {
  switch (kind) {
    case Incident::Kind::kRefused:
      return "refused";
    case Incident::Kind::kRejected:
      return "rejected";
    case Incident::Kind::kLeft:
      return "left";
    case Incident::Kind::kLost:
      return "lost";
    case Incident::Kind::kExcluded:
      return "excluded";
  }
  return "";
}

}  // namespace net
