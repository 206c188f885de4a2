// Compressed files and files in other formats have a reason of their own, which says what to do.
#include "data/file_kind.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fmt/format.h>

#include "base/math.h"

namespace data {
namespace {

// Far enough for any format's header; the whole file would be read twice.
constexpr size_t kBinaryProbeBytes = size_t(base::kMiB);

struct Signature {
  std::string_view bytes;
  const char* reason;
};
constexpr Signature kSignatures[] = {
    {"\x1f\x8b\x08", "compressed with gzip: unpack it first"},
    {"\x28\xb5\x2f\xfd", "compressed with zstd: unpack it first"},
    {"\xfd\x37zXZ", "compressed with xz: unpack it first"},
    {"BZh", "compressed with bzip2: unpack it first"},
    {"PK\x03\x04", "a zip archive: unpack it first"},
    {"PAR1", "a parquet table: turn it into JSON lines first"},
    {"\xff\xfe", "text in UTF-16: turn it into UTF-8 first"},
    {"\xfe\xff", "text in UTF-16: turn it into UTF-8 first"},
};

std::string lower_case_extension(const std::string& path) {
  std::string extension = std::filesystem::path(path).extension().string();
  std::ranges::transform(extension, extension.begin(),
                         [](unsigned char letter) { return char(std::tolower(letter)); });
  return extension;
}

// Empty: it may be text.
std::string reason_against_text(std::string_view content) {
  const size_t zero = content.substr(0, kBinaryProbeBytes).find('\0');
  for (const Signature& signature : kSignatures) {
    // Two bytes alone could begin a text in some old encoding.
    const bool is_telling = signature.bytes.size() > 2 || zero != std::string_view::npos;
    if (is_telling && content.starts_with(signature.bytes)) return signature.reason;
  }
  return zero == std::string_view::npos ? "" : fmt::format("binary: byte {} of it is zero", zero);
}

}  // namespace

FileKind kind_of(const std::string& path, std::string_view content) {
  if (content.empty()) return {.reason = "empty"};
  const std::string extension = lower_case_extension(path);
  if (extension == ".jsonl" || extension == ".ndjson") return {.form = FileKind::kJsonLines};
  if (extension == ".json") return {.form = FileKind::kJsonValues};
  std::string reason = reason_against_text(content);
  if (!reason.empty()) return {.reason = std::move(reason)};
  return {.form = FileKind::kText};
}

}  // namespace data
