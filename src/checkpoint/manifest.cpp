#include "checkpoint/manifest.h"

#include <algorithm>
#include <limits>
#include <string_view>
#include <utility>

#include "base/json.h"

namespace checkpoint {
namespace {

constexpr std::string_view kFormat = "atoll checkpoint";
constexpr const char* kDigestKey = "manifest_sha256";
constexpr size_t kDigestCharacters = 64;
constexpr std::string_view kEnd = "\"\n}\n";  // What follows the digest's characters.

// Everything before the characters of the digest. REQUIRES: the text is long enough.
std::string_view signed_part(std::string_view text) {
  return text.substr(0, text.size() - kEnd.size() - kDigestCharacters);
}

std::string digest_of(std::string_view text) {
  return base::sha256(std::as_bytes(std::span(text))).hex();
}

void write_fields(base::JsonWriter& out, const Manifest& manifest) {
  out.field("step", manifest.step)
      .field("optimizer_updates", manifest.optimizer_updates)
      .field("tokens_trained", manifest.tokens_trained)
      .field("model_config", manifest.model_config)
      .field("data_config", manifest.data_config)
      .field("tokenizer", manifest.tokenizer.name);
  if (manifest.tokenizer.begin_id >= 0) out.field("begin_id", manifest.tokenizer.begin_id);
  if (manifest.tokenizer.end_id >= 0) out.field("end_id", manifest.tokenizer.end_id);
  out.field("config", manifest.config.hex()).field("shared_config", manifest.shared_config);
  out.key("changes").begin_array();
  for (const ConfigChange& change : manifest.changes) {
    out.begin_object()
        .field("step", change.step)
        .field("key", change.key)
        .field("before", change.before)
        .field("after", change.after)
        .end_object();
  }
  out.end_array()
      .field("data", manifest.data.hex())
      .field("samples", manifest.samples)
      .field("samples_per_pass", manifest.samples_per_pass);
  out.key("samples_left").begin_array();
  for (const data::SampleRange& range : manifest.samples_left) {
    out.begin_object().field("first", range.first).field("count", range.count).end_object();
  }
  out.end_array().key("outer").begin_array();
  for (const net::FragmentState& fragment : manifest.outer) {
    out.begin_object()
        .field("version", fragment.version)
        .field("digest", fragment.digest.hex())
        .end_object();
  }
  out.end_array()
      .field("committed_step", manifest.committed_step)
      .key("tokens_since_commit")
      .begin_array();
  for (const int64_t tokens : manifest.tokens_since_commit) out.value(tokens);
  out.end_array().key("in_flight").begin_array();
  for (const InFlight& in_flight : manifest.in_flight) {
    out.begin_object()
        .field("fragment", in_flight.fragment)
        .field("step", in_flight.step)
        .field("tokens", in_flight.tokens);
    if (in_flight.merge_from) {
      out.field("merge_from", *in_flight.merge_from).field("is_short", in_flight.is_short);
    }
    out.end_object();
  }
  out.end_array().key("gradient_squares").begin_array();
  for (const double squares : manifest.gradient_squares) out.value(squares);
  out.end_array().field("wall_time", manifest.wall_time);
}

// Getters that throw the manifest's error instead of returning a Failure: one wrong field is as bad
// as any other.
class FieldReader {
 public:
  FieldReader(base::JsonValue object, const std::string& path)
      : object_(std::move(object)), path_(path) {}

  bool has(const char* key) const { return object_.has(key); }
  std::string text(const char* key) const { return require(member(key).as_string()); }
  std::string text_or_empty(const char* key) const { return object_.has(key) ? text(key) : ""; }
  bool boolean(const char* key) const { return require(member(key).as_boolean()); }
  base::Digest digest(const char* key) const {
    const base::JsonValue value = member(key);
    const auto digest = base::parse_digest(require(value.as_string()));
    if (!digest) throw damaged(path_, fmt::format("{}: {}", value.path(), digest.reason()));
    return *digest;
  }
  int64_t count(const char* key) const { return count(member(key)); }
  int32_t id(const char* key) const {
    const int64_t number = count(key);
    if (number > std::numeric_limits<int32_t>::max())
      throw damaged(path_, fmt::format("{}: {} is no token", member(key).path(), number));
    return int32_t(number);
  }
  double number(const char* key) const { return require(member(key).as_number()); }
  std::vector<int64_t> counts(const char* key) const {
    std::vector<int64_t> values;
    for (const base::JsonValue& element : elements(key)) values.push_back(count(element));
    return values;
  }
  std::vector<double> numbers(const char* key) const {
    std::vector<double> values;
    for (const base::JsonValue& element : elements(key))
      values.push_back(require(element.as_number()));
    return values;
  }
  FieldReader object(const char* key) const { return {member(key), path_}; }
  std::vector<FieldReader> objects(const char* key) const {
    std::vector<FieldReader> readers;
    for (const base::JsonValue& element : elements(key)) readers.emplace_back(element, path_);
    return readers;
  }
  std::vector<std::pair<std::string, FieldReader>> members(const char* key) const {
    const base::JsonValue object = member(key);
    if (!object.is_object())
      throw damaged(path_, fmt::format("{}: expected an object", object.path()));
    std::vector<std::pair<std::string, FieldReader>> readers;
    for (const std::string& name : object.keys()) {
      readers.emplace_back(name, FieldReader(require(object.get(name)), path_));
    }
    return readers;
  }

 private:
  template <class T>
  T require(base::Result<T> result) const {
    if (!result) throw damaged(path_, result.reason());
    return std::move(*result);
  }
  base::JsonValue member(const char* key) const { return require(object_.get(key)); }
  std::vector<base::JsonValue> elements(const char* key) const {
    const base::JsonValue array = member(key);
    if (!array.is_array()) throw damaged(path_, fmt::format("{}: expected an array", array.path()));
    std::vector<base::JsonValue> values;
    for (int64_t i = 0; i < array.count(); ++i) values.push_back(require(array.at(i)));
    return values;
  }
  int64_t count(const base::JsonValue& value) const {
    const int64_t number = require(value.as_integer());
    if (number < 0)
      throw damaged(path_, fmt::format("{}: expected a count, found {}", value.path(), number));
    return number;
  }

  base::JsonValue object_;
  const std::string& path_;
};

data::TokenizerRecord read_tokenizer(const FieldReader& in) {
  data::TokenizerRecord tokenizer{.name = in.text("tokenizer")};
  const auto id = [&](const char* key) {
    return in.has(key) ? in.id(key) : data::Tokenizer::kNoId;
  };
  tokenizer.begin_id = id("begin_id");
  tokenizer.end_id = id("end_id");
  return tokenizer;
}

Manifest read_fields(const FieldReader& in) {
  Manifest manifest;
  manifest.step = in.count("step");
  manifest.optimizer_updates = in.count("optimizer_updates");
  manifest.tokens_trained = in.count("tokens_trained");
  manifest.model_config = in.text("model_config");
  manifest.data_config = in.text_or_empty("data_config");
  manifest.tokenizer = read_tokenizer(in);
  manifest.config = in.digest("config");
  manifest.shared_config = in.text_or_empty("shared_config");
  if (in.has("changes")) {
    for (const FieldReader& change : in.objects("changes")) {
      manifest.changes.push_back({.step = change.count("step"),
                                  .key = change.text("key"),
                                  .before = change.text("before"),
                                  .after = change.text("after")});
    }
  }
  manifest.data = in.digest("data");
  manifest.samples = in.count("samples");
  manifest.samples_per_pass = in.number("samples_per_pass");
  for (const FieldReader& range : in.objects("samples_left"))
    manifest.samples_left.push_back({.first = range.count("first"), .count = range.count("count")});
  for (const FieldReader& fragment : in.objects("outer")) {
    manifest.outer.push_back(
        {.version = uint64_t(fragment.count("version")), .digest = fragment.digest("digest")});
  }
  manifest.committed_step = in.count("committed_step");
  manifest.tokens_since_commit = in.counts("tokens_since_commit");
  if (in.has("in_flight")) {
    for (const FieldReader& one : in.objects("in_flight")) {
      InFlight in_flight{.fragment = one.count("fragment"),
                         .step = one.count("step"),
                         .tokens = one.count("tokens")};
      if (one.has("merge_from")) {
        in_flight.merge_from = one.count("merge_from");
        in_flight.is_short = one.boolean("is_short");
      }
      manifest.in_flight.push_back(in_flight);
    }
  }
  manifest.gradient_squares = in.numbers("gradient_squares");
  manifest.wall_time = in.text("wall_time");
  return manifest;
}

void check_digest(const std::string& text, const std::string& path) {
  if (text.size() < kDigestCharacters + kEnd.size() || !text.ends_with(kEnd)) {
    throw damaged(path, fmt::format("the end is missing, {} bytes are there", text.size()));
  }
  const std::string_view hashed = signed_part(text);
  // Compared as text: the digits of a digest have one spelling.
  if (text.compare(hashed.size(), kDigestCharacters, digest_of(hashed)) != 0) {
    throw damaged(path, fmt::format("{}: the hash of the text is a different one", kDigestKey));
  }
}

void write_record(base::JsonWriter& out, const std::string& key, const FileRecord& record) {
  out.key(key)
      .begin_object()
      .field("bytes", record.bytes)
      .field("sha256", record.sha256.hex())
      .end_object();
}

FileRecord read_record(const FieldReader& in) {
  return {.bytes = in.count("bytes"), .sha256 = in.digest("sha256")};
}

}  // namespace

std::string write_manifest(const ManifestFile& content) {
  CHECK(content.manifest.tokenizer.definition.empty());
  base::JsonWriter out(2);
  out.begin_object().field("format", kFormat).field("format_version", kFormatVersion);
  write_fields(out, content.manifest);
  if (content.tokenizer_file) write_record(out, "tokenizer_file", *content.tokenizer_file);
  out.key("files").begin_object();
  for (const auto& [name, record] : content.files) write_record(out, name, record);
  out.end_object().field(kDigestKey, std::string(kDigestCharacters, '0')).end_object();

  std::string text = out.text() + "\n";
  const size_t digest_at = signed_part(text).size();
  text.replace(digest_at, kDigestCharacters, digest_of(signed_part(text)));
  if (read_manifest(text, kManifestName) != content) {
    throw base::bad_input(fmt::format("{}: a text in it is not valid UTF-8", kManifestName));
  }
  return text;
}

ManifestFile read_manifest(const std::string& text, const std::string& path) {
  check_digest(text, path);
  const auto document = base::JsonValue::parse(text);
  if (!document) throw damaged(path, document.reason());
  const FieldReader in(*document, path);
  if (in.text("format") != kFormat)
    throw damaged(path, fmt::format("format: expected \"{}\"", kFormat));
  if (const int64_t version = in.count("format_version"); version != kFormatVersion) {
    throw base::bad_input(
        fmt::format("{}: format_version: expected {}, found {}", path, kFormatVersion, version),
        "another version of Atoll wrote this checkpoint: use that one");
  }
  ManifestFile content;
  content.manifest = read_fields(in);
  if (in.has("tokenizer_file")) content.tokenizer_file = read_record(in.object("tokenizer_file"));
  for (const auto& [name, record] : in.members("files")) {
    if (!is_file_name(name)) {
      const std::string quoted = base::JsonWriter().value(name).text();  // It may hold anything.
      throw damaged(path, fmt::format("files: {} is not a name for a file", quoted));
    }
    content.files[name] = read_record(record);
  }
  return content;
}

Damaged damaged(const std::string& path, const std::string& found) {
  return Damaged(
      base::ExitCode::kBadInput, fmt::format("{}: {}", path, found),
      "the checkpoint is damaged; an older one can be used by removing this one's folder");
}

bool is_file_name(const std::string& name) {
  constexpr std::string_view kAllowed =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
  constexpr std::string_view kSuffix = ".safetensors";
  return name.size() > kSuffix.size() && name.size() <= 200 && name.ends_with(kSuffix) &&
         name[0] != '.' && name.find_first_not_of(kAllowed) == std::string::npos;
}

}  // namespace checkpoint
