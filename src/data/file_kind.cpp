// Files in other formats have a reason of their own, which says what to do.
#include "data/file_kind.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fmt/format.h>
namespace data {
namespace {

struct Signature {
  std::string_view bytes;
  const char* reason;
};
constexpr Signature kSignatures[] = {
    {"\x1f\x8b\x08", "packed twice: unpack it first"},
    {"\x28\xb5\x2f\xfd", "packed twice: unpack it first"},
    {"\xfd\x37zXZ", "compressed with xz: unpack it first"},
    {"BZh", "compressed with bzip2: unpack it first"},
    {"PK\x03\x04", "a zip archive: unpack it first"},
    {"\xff\xfe", "text in UTF-16: turn it into UTF-8 first"},
    {"\xfe\xff", "text in UTF-16: turn it into UTF-8 first"},
};

constexpr std::string_view kParquetSignature = "PAR1";

FileKind parquet_table(const std::string& path) {
  return {.form = FileKind::kRefused,
          .reason = "a Parquet table, which cannot be read",
          .hint = fmt::format(
              "turn it into JSON lines: python3 -c \"import json, pyarrow.parquet as p; "
              "[print(json.dumps(row)) for part in p.ParquetFile('{}').iter_batches(columns="
              "['text']) for row in part.to_pylist()]\" > FILE.jsonl",
              path)};
}

// Without what says how the file is packed.
std::string lower_case_extension(std::string path) {
  std::ranges::transform(path, path.begin(),
                         [](unsigned char letter) { return char(std::tolower(letter)); });
  for (const std::string_view packed : {".gz", ".zst"})
    if (path.ends_with(packed)) path.resize(path.size() - packed.size());
  return std::filesystem::path(path).extension().string();
}

// Empty: it may be text.
std::string reason_against_text(std::string_view content) {
  const size_t zero = content.substr(0, kKindBytes).find('\0');
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
  if (content.starts_with(kParquetSignature)) return parquet_table(path);
  std::string reason = reason_against_text(content);
  if (!reason.empty()) return {.reason = std::move(reason)};
  return {.form = FileKind::kText};
}

}  // namespace data
