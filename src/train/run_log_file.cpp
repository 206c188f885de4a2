#include "train/run_log_file.h"

#include <charconv>
#include <fmt/format.h>

#include "base/json.h"
#include "base/log.h"

namespace train {
namespace {

// All 64 bits matter, and JSON's numbers are not for that.
std::string hex(uint64_t number) {
  return fmt::format("{:016x}", number);
}

// Reads what is there; what is missing or strange makes the whole text unusable.
class Reader {
 public:
  bool is_good() const { return is_good_; }
  uint64_t number(const base::Result<base::JsonValue>& value) {
    const auto text = value.ok() ? value->as_string() : base::Result<std::string>(std::string());
    uint64_t number = 0;
    if (!text.ok()) return fail();
    const char* const end = text->data() + text->size();
    const auto read = std::from_chars(text->data(), end, number, 16);
    return read.ec == std::errc{} && read.ptr == end && !text->empty() ? number : fail();
  }
  net::Endpoint endpoint(const base::Result<base::JsonValue>& value) {
    const auto text = value.ok() ? value->as_string() : base::Result<std::string>(std::string());
    const auto endpoint = net::parse_endpoint(text.ok() ? *text : "");
    is_good_ &= endpoint.ok();
    return endpoint.ok() ? *endpoint : net::Endpoint{};
  }
  bool truth(const base::Result<base::JsonValue>& value) {
    const auto truth = value.ok() ? value->as_boolean() : base::Result<bool>(false);
    is_good_ &= value.ok() && truth.ok();
    return truth.ok() && *truth;
  }
  template <class Each>
  void list(const base::Result<base::JsonValue>& value, int64_t limit, Each each) {
    is_good_ &= value.ok() && value->is_array() && value->count() <= limit;
    for (int64_t i = 0; is_good_ && i < value->count(); ++i) each(*value->at(i));
  }

 private:
  uint64_t fail() {
    is_good_ = false;
    return 0;
  }
  bool is_good_ = true;
};

}  // namespace

std::string write_run_log(const std::string& run_name, const net::RunLog& log) {
  base::JsonWriter out(1);
  out.begin_object().field("run", run_name);
  out.field("term", hex(log.term)).field("coordinator", hex(log.coordinator));
  out.field("list_term", hex(log.list_term)).field("epoch", hex(log.epoch));
  out.key("members").begin_array();
  for (const net::Seat& seat : log.list.members) {
    out.begin_object().field("peer", hex(seat.peer)).field("node_key", hex(seat.node_key));
    out.field("data", seat.data.text()).field("is_reachable", seat.is_reachable).end_object();
  }
  out.end_array().key("electorates").begin_array();
  for (const net::Electorate& electorate : log.list.electorates) {
    out.begin_object().field("tie_breaker", hex(electorate.tie_breaker));
    out.key("voters").begin_array();
    for (const uint64_t voter : electorate.voters) out.value(hex(voter));
    out.end_array().end_object();
  }
  out.end_array().end_object();
  return out.text() + "\n";
}

std::optional<net::RunLog> parse_run_log(const std::string& run_name, const std::string& text) {
  const auto document = base::JsonValue::parse(text);
  if (!document.ok() || !document->is_object()) return std::nullopt;
  const auto run = document->get("run");
  const auto name = run.ok() ? run->as_string() : base::Result<std::string>(std::string());
  if (!run.ok() || !name.ok() || *name != run_name) return std::nullopt;
  Reader reader;
  net::RunLog log{.term = uint32_t(reader.number(document->get("term"))),
                  .coordinator = reader.number(document->get("coordinator")),
                  .list_term = uint32_t(reader.number(document->get("list_term"))),
                  .epoch = reader.number(document->get("epoch")),
                  .list = {}};
  reader.list(document->get("members"), 2 * net::kMembersMax, [&](const base::JsonValue& seat) {
    log.list.members.push_back({.peer = net::PeerId(reader.number(seat.get("peer"))),
                                .node_key = reader.number(seat.get("node_key")),
                                .data = reader.endpoint(seat.get("data")),
                                .is_reachable = reader.truth(seat.get("is_reachable"))});
  });
  reader.list(document->get("electorates"), net::kElectoratesMax, [&](const base::JsonValue& one) {
    net::Electorate& electorate = log.list.electorates.emplace_back();
    electorate.tie_breaker = reader.number(one.get("tie_breaker"));
    reader.list(one.get("voters"), net::kMembersMax, [&](const base::JsonValue& voter) {
      electorate.voters.push_back(reader.number(voter));
    });
  });
  if (!reader.is_good()) return std::nullopt;
  return log;
}

RunLogFile::RunLogFile(base::Storage& storage, std::string path, std::string run_name)
    : storage_(storage), path_(std::move(path)), run_name_(std::move(run_name)) {
  if (!storage_.exists(path_)) return;
  auto log = parse_run_log(run_name_, storage_.read_text(path_));
  if (!log) base::log_warning("{} is not this run's, or not whole: it is not used", path_);
  if (log) found_ = std::move(*log);
}

void RunLogFile::keep(const net::RunLog& log) {
  const std::lock_guard lock(mutex_);
  newest_ = log;
  write();
}

void RunLogFile::open() {
  const std::lock_guard lock(mutex_);
  is_open_ = true;
  write();
}

void RunLogFile::write() {
  if (!is_open_ || !newest_) return;
  try {
    storage_.write_atomically(path_, write_run_log(run_name_, *newest_));
  } catch (const base::Error& error) {
    if (!std::exchange(is_failure_told_, true)) base::log_error("{}", error.what());
  }
}

}  // namespace train
