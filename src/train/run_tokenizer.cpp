#include "train/run_tokenizer.h"

#include <fmt/format.h>

#include "base/hash.h"
#include "base/log.h"

namespace train {
namespace {

std::string describe_record(const data::TokenizerRecord& record) {
  if (record.definition.empty()) return record.name;
  const auto digest = base::sha256(std::as_bytes(std::span(record.definition)));
  return fmt::format("{} ({} bytes, SHA-256 {}...)", record.name, record.definition.size(),
                     digest.hex().substr(0, 16));
}

std::string describe_ends(const data::TokenizerRecord& record) {
  const auto id = [](int32_t value) {
    return value == data::Tokenizer::kNoId ? "none" : fmt::format("{}", value);
  };
  return fmt::format("begin id {}, end id {}", id(record.begin_id), id(record.end_id));
}

// A file's name may change, its content may not.
bool have_one_definition(const data::TokenizerRecord& a, const data::TokenizerRecord& b) {
  const bool are_bytes = a.name == data::kBytesTokenizer && b.name == data::kBytesTokenizer;
  return are_bytes || (!a.definition.empty() && a.definition == b.definition);
}

base::Error differ(const KnownTokenizer& a, const KnownTokenizer& b, const std::string& a_text,
                   const std::string& b_text) {
  return base::bad_input(
      fmt::format("the tokenizers differ: {} has {}, {} has {}", a.where, a_text, b.where, b_text),
      "one id must mean one thing in a run: prepare all data with the same tokenizer, and set "
      "data.tokenizer to it or to auto");
}

void require_same(const KnownTokenizer& a, const KnownTokenizer& b) {
  if (!have_one_definition(a.record, b.record))
    throw differ(a, b, describe_record(a.record), describe_record(b.record));
  if (a.record.begin_id != b.record.begin_id || a.record.end_id != b.record.end_id)
    throw differ(a, b, describe_ends(a.record), describe_ends(b.record));
}

// Of the config, which says nothing of what the data have around documents.
KnownTokenizer configured(const RunConfig& config, base::Storage& storage) {
  KnownTokenizer result{.where = "data.tokenizer"};
  if (config.data.tokenizer == kTokenizerAuto) return result;
  const auto tokenizer = data::make_tokenizer(storage, config.data.tokenizer);
  if (tokenizer->vocabulary() > config.model.vocabulary) {
    throw base::bad_input(
        fmt::format("data.tokenizer: {} has {} ids, but model.vocabulary is {}",
                    config.data.tokenizer, tokenizer->vocabulary(), config.model.vocabulary),
        "set model.vocabulary to at least so many");
  }
  result.record = data::record_of(*tokenizer);
  return result;
}

}  // namespace

KnownTokenizer known_tokenizer(const checkpoint::Manifest& manifest, const std::string& where) {
  if (manifest.tokenizer.end_id == data::Tokenizer::kNoId) return {};
  return {.record = manifest.tokenizer, .where = where};
}

data::TokenizerRecord agree_on_tokenizer(const RunConfig& config, base::Storage& storage,
                                         const std::vector<const data::TokenDataset*>& datasets,
                                         const KnownTokenizer& known) {
  std::vector<KnownTokenizer> places;
  for (const data::TokenDataset* dataset : datasets)
    places.push_back({.record = data::tokenizer_of(storage, *dataset), .where = dataset->prefix()});
  places.push_back(known);
  std::erase_if(places, [](const KnownTokenizer& place) { return !place.record.is_whole(); });
  for (size_t i = 1; i < places.size(); ++i) require_same(places[0], places[i]);

  const KnownTokenizer named = configured(config, storage);
  if (named.record.is_whole() && places.empty()) return named.record;
  if (named.record.is_whole() && !have_one_definition(named.record, places[0].record))
    throw differ(named, places[0], describe_record(named.record),
                 describe_record(places[0].record));
  if (!places.empty()) return places[0].record;
  base::log_warning(
      "the data do not say how text became tokens: checkpoints will not know it either. "
      "data.tokenizer can name it");
  return {.name = datasets.empty() ? "" : datasets[0]->tokenizer_name()};
}

}  // namespace train
