// The text for Prometheus, read by its grammar: lines of HELP and TYPE, then the samples of that
// family alone, each a name, labels with escaped values, and a number.
#include <cctype>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "observe/board_text.h"
#include "support/catch.h"

namespace {

using Labels = std::map<std::string, std::string>;

struct Sample {
  std::string name;
  Labels labels;
  double value = 0;
};

// Takes texts from the front; what does not fit fails the test.
class Reader {
 public:
  explicit Reader(std::string_view rest) : rest_(rest) {}

  bool take(std::string_view text) {
    if (!rest_.starts_with(text)) return false;
    rest_.remove_prefix(text.size());
    return true;
  }
  // [a-zA-Z_:][a-zA-Z0-9_:]*
  std::string name() {
    size_t length = 0;
    while (length < rest_.size() &&
           (std::isalnum(rest_[length]) || rest_[length] == '_' || rest_[length] == ':'))
      ++length;
    REQUIRE(length > 0);
    REQUIRE_FALSE(std::isdigit(rest_[0]));
    return cut(length);
  }
  std::string quoted() {
    REQUIRE(take("\""));
    std::string text;
    while (!take("\"")) {
      REQUIRE_FALSE(rest_.empty());
      if (take("\\\\")) {
        text += '\\';
      } else if (take("\\\"")) {
        text += '"';
      } else if (take("\\n")) {
        text += '\n';
      } else {
        REQUIRE(rest_[0] != '\\');
        REQUIRE(rest_[0] != '\n');
        text += cut(1);
      }
    }
    return text;
  }
  Labels labels() {
    Labels result;
    if (!take("{")) return result;
    do {
      const std::string key = name();
      REQUIRE(take("="));
      REQUIRE(result.emplace(key, quoted()).second);
    } while (take(","));
    REQUIRE(take("}"));
    return result;
  }
  std::string line() {
    const size_t end = rest_.find('\n');
    REQUIRE(end != std::string_view::npos);
    const std::string text = cut(end);
    REQUIRE(take("\n"));
    return text;
  }
  double number() {
    const std::string text = line();
    if (text == "+Inf") return INFINITY;
    size_t used = 0;
    const double value = std::stod(text, &used);
    REQUIRE(used == text.size());
    REQUIRE(std::isfinite(value));
    return value;
  }
  bool is_over() const { return rest_.empty(); }

 private:
  std::string cut(size_t length) {
    const std::string text(rest_.substr(0, length));
    rest_.remove_prefix(length);
    return text;
  }
  std::string_view rest_;
};

bool belongs(const std::string& sample, const std::string& family, const std::string& type) {
  if (sample == family) return true;
  return type == "summary" && (sample == family + "_sum" || sample == family + "_count");
}

std::vector<Sample> read_families(const std::string& text) {
  std::vector<Sample> samples;
  std::set<std::string> families;
  std::set<std::pair<std::string, Labels>> seen;
  Reader reader(text);
  std::string family, type;
  while (!reader.is_over()) {
    if (reader.take("# HELP ")) {
      family = reader.name();
      REQUIRE(families.insert(family).second);
      REQUIRE(reader.take(" "));
      REQUIRE(reader.line().ends_with("."));
      REQUIRE(reader.take("# TYPE " + family + " "));
      type = reader.line();
      REQUIRE((type == "gauge" || type == "counter" || type == "summary"));
      REQUIRE(family.ends_with("_total") == (type == "counter"));
      REQUIRE(family.starts_with("atoll_"));
      continue;
    }
    Sample sample{.name = reader.name(), .labels = reader.labels()};
    REQUIRE(reader.take(" "));
    sample.value = reader.number();
    REQUIRE(belongs(sample.name, family, type));
    REQUIRE(seen.emplace(sample.name, sample.labels).second);
    if (type == "counter") REQUIRE(sample.value >= 0);
    samples.push_back(sample);
  }
  return samples;
}

std::optional<double> value_of(const std::vector<Sample>& samples, const std::string& name,
                               const Labels& labels = {}) {
  for (const Sample& sample : samples)
    if (sample.name == name && sample.labels == labels) return sample.value;
  return std::nullopt;
}

}  // namespace

TEST_CASE("prometheus: of a run of which nothing is known yet") {
  const auto samples = read_families(observe::prometheus_text({}, "1.2.3"));
  REQUIRE(value_of(samples, "atoll_build_info", {{"version", "1.2.3"}}) == 1);
  REQUIRE(value_of(samples, "atoll_step") == 0);
  REQUIRE_FALSE(value_of(samples, "atoll_loss"));
  REQUIRE_FALSE(value_of(samples, "atoll_step_seconds", {{"quantile", "0.5"}}));
  REQUIRE(value_of(samples, "atoll_incidents_total", {{"kind", "lost"}}) == 0);
}

TEST_CASE("prometheus: values, units and labels, whatever stands in them") {
  observe::Board board;
  board.run = "a \"run\"\\\nof two lines";
  for (int step = 1; step <= 100; ++step) {
    board.add(R"({"event":"inner_step","time":"2026-01-31T12:00:00.000Z","node":"n","loss":2.5,)"
              R"("tokens":10,"mfu":0.5,"step":)" +
              std::to_string(step) + R"(,"seconds":)" + std::to_string(step) + "}");
  }
  board.add(
      R"({"event":"round","bytes_sent":5000000000,"exposed_seconds":1.5,"encode_seconds":0.25,)"
      R"("wait_seconds":0.75,"apply_seconds":0.5,"seconds":3})");
  board.add(R"({"event":"incident","what":"odd \"kind\" \\ \n"})");
  const auto samples = read_families(observe::prometheus_text(board, "1"));
  REQUIRE(value_of(samples, "atoll_run_info",
                   {{"run", board.run}, {"node", "n"}, {"device", ""}}) == 1);
  REQUIRE(value_of(samples, "atoll_step") == 100);
  REQUIRE(value_of(samples, "atoll_loss") == 2.5);
  REQUIRE(value_of(samples, "atoll_tokens_total") == 1000);
  REQUIRE(value_of(samples, "atoll_step_seconds", {{"quantile", "0.5"}}) == 50);
  REQUIRE(value_of(samples, "atoll_step_seconds", {{"quantile", "0.99"}}) == 99);
  REQUIRE(value_of(samples, "atoll_step_seconds_sum") == 5050);
  REQUIRE(value_of(samples, "atoll_step_seconds_count") == 100);
  REQUIRE(value_of(samples, "atoll_round_sent_bytes_total") == 5e9);
  double exposed = 0;
  for (const char* part : {"encode", "wait", "apply"})
    exposed += *value_of(samples, "atoll_round_exposed_seconds_total", {{"part", part}});
  REQUIRE(exposed == 1.5);
  REQUIRE(value_of(samples, "atoll_incidents_total", {{"kind", "odd \"kind\" \\ \n"}}) == 1);
}
