#include "net/keys.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <fmt/format.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <set>
#include <sstream>

#include "base/hash.h"
#include "net/security/openssl_handles.h"

namespace net {
namespace {

constexpr std::string_view kNodeKeyWord = "atoll-node-key";
constexpr std::string_view kRunSecretWord = "atoll-run-secret";
constexpr std::string_view kSignerPurpose = "atoll run signer 1\n";
constexpr size_t kNameBytesMax = 64;

KeyBytes random_bytes() {
  KeyBytes bytes;
  if (RAND_bytes(bytes.data(), int(bytes.size())) != 1)
    throw base::resource_lost("the system gives no random bytes");
  return bytes;
}

std::string to_hex(const KeyBytes& bytes) {
  std::string text;
  for (const uint8_t byte : bytes) text += fmt::format("{:02x}", byte);
  return text;
}

std::optional<KeyBytes> from_hex(std::string_view text) {
  KeyBytes bytes;
  if (text.size() != 2 * bytes.size()) return std::nullopt;
  for (size_t i = 0; i < bytes.size(); ++i) {
    const char* const first = text.data() + 2 * i;
    const auto [end, error] = std::from_chars(first, first + 2, bytes[i], 16);
    if (error != std::errc() || end != first + 2) return std::nullopt;
  }
  return bytes;
}

std::vector<std::string> words_of(const std::string& line) {
  std::istringstream stream(line.substr(0, line.find('#')));
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

// An editor may have put one before the first line.
constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

// Of every line, in order.
std::vector<std::vector<std::string>> lines_of_words(std::string text) {
  if (text.starts_with(kByteOrderMark)) text.erase(0, kByteOrderMark.size());
  std::istringstream stream(text);
  std::vector<std::vector<std::string>> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(words_of(line));
  return lines;
}

// The one line `WORD DIGITS`.
std::optional<KeyBytes> find_secret(const std::string& text, std::string_view word) {
  for (const auto& words : lines_of_words(text)) {
    if (words.empty()) continue;
    return words.size() == 2 && words[0] == word ? from_hex(words[1]) : std::nullopt;
  }
  return std::nullopt;
}

std::optional<int64_t> end_of_day(const std::string& date) {
  int year = 0;
  unsigned month = 0, day = 0;
  int length = 0;
  if (std::sscanf(date.c_str(), "%4d-%2u-%2u%n", &year, &month, &day, &length) != 3 ||
      size_t(length) != date.size())
    return std::nullopt;
  const std::chrono::year_month_day when{std::chrono::year(year), std::chrono::month(month),
                                         std::chrono::day(day)};
  if (!when.ok()) return std::nullopt;
  const std::chrono::sys_days midnight = std::chrono::sys_days(when) + std::chrono::days(1);
  return std::chrono::duration_cast<std::chrono::seconds>(midnight.time_since_epoch()).count();
}

base::Result<AllowedKey> parse_line(const std::vector<std::string>& words) {
  AllowedKey key;
  const auto bytes = from_hex(words[0]);
  if (!bytes) return base::Failure{"it does not begin with a key of 64 hexadecimal digits"};
  key.id.bytes = *bytes;
  if (key.id.is_weak()) return base::Failure{"a key for which anybody can sign"};
  if (words.size() < 2) return base::Failure{"after the key there is no name"};
  key.name = words[1];
  if (key.name.size() > kNameBytesMax)
    return base::Failure{fmt::format("a name of {} bytes; {} fit", key.name.size(), kNameBytesMax)};
  if (words.size() == 2) return key;
  const auto until = words.size() == 4 && words[2] == "until" ? end_of_day(words[3]) : std::nullopt;
  if (!until) return base::Failure{"after key and name comes nothing, or `until YYYY-MM-DD`"};
  key.until = *until;
  return key;
}

}  // namespace

// All encodings of the eight points of small order of edwards25519, without the bit that is the
// sign of x.
bool NodeId::is_weak() const {
  constexpr std::array<std::string_view, 7> kWeak = {
      "0000000000000000000000000000000000000000000000000000000000000000",
      "0100000000000000000000000000000000000000000000000000000000000000",
      "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
      "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
      "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
      "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
      "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"};
  NodeId y = *this;
  y.bytes.back() &= 0x7f;
  return std::ranges::find(kWeak, y.text()) != kWeak.end();
}

std::string NodeId::text() const {
  return to_hex(bytes);
}

uint64_t NodeId::number() const {
  const base::Digest digest = base::sha256(std::as_bytes(std::span(bytes)));
  uint64_t number = 0;
  for (size_t i = 0; i < sizeof(number); ++i) number |= uint64_t{digest.bytes[i]} << (8 * i);
  return std::max<uint64_t>(number, 1);
}

base::Result<NodeId> parse_node_id(const std::string& text) {
  const auto bytes = from_hex(text);
  if (!bytes) return base::Failure{"a public key has 64 hexadecimal digits"};
  const NodeId id{*bytes};
  if (id.is_weak()) return base::Failure{"a key for which anybody can sign"};
  return id;
}

NodeKey NodeKey::make() {
  return NodeKey(random_bytes());
}

NodeKey::NodeKey(const KeyBytes& seed) : seed_(seed) {
  const PrivateKey key = private_key(*this);
  size_t byte_count = id_.bytes.size();
  CHECK(EVP_PKEY_get_raw_public_key(key.get(), id_.bytes.data(), &byte_count) == 1);
}

std::string NodeKey::file_text() const {
  return fmt::format(
      "# The private key of a node of Atoll: whoever has it is that node. Its public key, for the\n"
      "# list of the run, and its number:\n"
      "# {} {:016x}\n"
      "{} {}\n",
      id_.text(), id_.number(), kNodeKeyWord, to_hex(seed_));
}

base::Result<NodeKey> parse_node_key(const std::string& file_text) {
  const auto seed = find_secret(file_text, kNodeKeyWord);
  if (!seed && find_secret(file_text, kRunSecretWord))
    return base::Failure{"it is the secret of a run"};
  if (!seed) return base::Failure{fmt::format("it has no line '{} <64 digits>'", kNodeKeyWord)};
  return NodeKey(*seed);
}

RunSecret RunSecret::make() {
  return RunSecret(random_bytes());
}

NodeKey RunSecret::signer(const std::string& run_name) const {
  const std::string purpose = std::string(kSignerPurpose) + run_name;
  KeyBytes seed;
  unsigned byte_count = unsigned(seed.size());
  const auto* text = reinterpret_cast<const unsigned char*>(purpose.data());
  CHECK(HMAC(EVP_sha256(), bytes_.data(), int(bytes_.size()), text, purpose.size(), seed.data(),
             &byte_count) != nullptr);
  return NodeKey(seed);
}

std::string RunSecret::file_text() const {
  return fmt::format(
      "# The secret of a run of Atoll: whoever has it can be a node of the run, or its "
      "coordinator.\n"
      "# The same file on all of them; nobody else's business.\n"
      "{} {}\n",
      kRunSecretWord, to_hex(bytes_));
}

base::Result<RunSecret> parse_run_secret(const std::string& text) {
  auto bytes = find_secret(text, kRunSecretWord);
  if (const auto words = words_of(text); !bytes && words.size() == 1) bytes = from_hex(words[0]);
  if (!bytes && find_secret(text, kNodeKeyWord)) return base::Failure{"it is the key of a node"};
  if (!bytes) return base::Failure{fmt::format("it has no line '{} <64 digits>'", kRunSecretWord)};
  return RunSecret(*bytes);
}

base::Result<std::vector<AllowedKey>> parse_allowed_keys(const std::string& file_text) {
  std::vector<AllowedKey> keys;
  std::set<NodeId> seen;
  int64_t number = 0;
  for (const auto& words : lines_of_words(file_text)) {
    ++number;
    if (words.empty()) continue;
    auto key = parse_line(words);
    if (!key.ok()) return base::Failure{fmt::format("line {}: {}", number, key.reason())};
    if (!seen.insert(key->id).second)
      return base::Failure{fmt::format("line {}: a key that stands there already", number)};
    if (int64_t(keys.size()) == kAllowedKeysMax)
      return base::Failure{fmt::format("line {}: more than {} keys", number, kAllowedKeysMax)};
    keys.push_back(std::move(*key));
  }
  return keys;
}

bool AllowedKeys::contains(const NodeId& id) const {
  const std::lock_guard lock(mutex_);
  return std::ranges::binary_search(ids_, id);
}

uint64_t AllowedKeys::generation() const {
  const std::lock_guard lock(mutex_);
  return generation_;
}

std::vector<NodeId> AllowedKeys::list() const {
  const std::lock_guard lock(mutex_);
  return ids_;
}

void AllowedKeys::set(const std::vector<NodeId>& ids) {
  std::vector<NodeId> sorted(ids);
  std::ranges::sort(sorted);
  const std::lock_guard lock(mutex_);
  if (sorted == ids_) return;
  ids_ = std::move(sorted);
  ++generation_;
}

}  // namespace net
