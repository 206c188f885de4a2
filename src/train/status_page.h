// status_page.html, as the build puts it into the program.
#pragma once

namespace train {

extern const char* const kStatusPage;

}  // namespace train
