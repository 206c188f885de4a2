// A board as other programs read it.
#pragma once

#include <string>
#include <string_view>

#include "observe/board.h"

namespace observe {

// The text format of Prometheus, version 0.0.4. Every family has its HELP and TYPE; one whose value
// is not known yet has no sample.
std::string prometheus_text(const Board& board, std::string_view program_version);
inline constexpr const char* kPrometheusType = "text/plain; version=0.0.4; charset=utf-8";

// One JSON object; docs/watching.md lists its keys. `now`: seconds since 1970. `directory`: of the
// run; empty: not told.
std::string status_json(const Board& board, double now, std::string_view directory = {});

}  // namespace observe
