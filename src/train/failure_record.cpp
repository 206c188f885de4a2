#include "train/failure_record.h"

#include <fmt/format.h>

#include "base/json.h"
#include "base/log.h"

namespace train {
namespace {

std::string path_of(const std::string& run_directory) {
  return run_directory + "/failure.json";
}

}  // namespace

std::optional<FailureRecord> read_failure(base::Storage& storage,
                                          const std::string& run_directory) {
  const std::string path = path_of(run_directory);
  if (!storage.exists(path)) return std::nullopt;
  const auto document = base::JsonValue::parse(storage.read_text(path));
  const auto number = [&](const char* key) -> base::Result<int64_t> {
    if (!document) return base::Failure{document.reason()};
    const auto member = document->get(key);
    if (!member) return base::Failure{member.reason()};
    return member->as_integer();
  };
  const auto step = number("step"), checkpoint = number("checkpoint"), times = number("times");
  if (!step || !checkpoint || !times) {
    base::log_warning("{} is not what Atoll writes; it is passed over", path);
    return std::nullopt;
  }
  return FailureRecord{.step = *step, .checkpoint = *checkpoint, .times = *times};
}

void note_failure(base::Storage& storage, const std::string& run_directory, int64_t step,
                  int64_t checkpoint) {
  try {
    const auto last = read_failure(storage, run_directory);
    const bool is_again = last && last->step == step && last->checkpoint == checkpoint;
    base::JsonWriter out;
    out.begin_object()
        .field("step", step)
        .field("checkpoint", checkpoint)
        .field("times", is_again ? last->times + 1 : int64_t{1})
        .end_object();
    storage.write_atomically(path_of(run_directory), out.text() + "\n");
  } catch (const base::Error& error) {
    base::log_warning("the failure is not remembered: {}", error.what());
  }
}

}  // namespace train
