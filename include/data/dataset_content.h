// What is in a dataset, found by one reading of all its tokens: wherever it lies, and whatever it
// is called.
#pragma once

#include <cstdint>
#include <functional>

#include "base/hash.h"
#include "data/token_dataset.h"

namespace data {

// Names a document by its tokens: below CRC-32C of them as int32, little endian, above their
// number. Equal documents have equal names in all datasets.
using DocumentName = uint64_t;

struct TokenPlace {
  int64_t id = 0;
  int64_t document = -1;  // -1: there is no token.
  int64_t position = 0;   // In the document.
};

struct DatasetContent {
  TokenPlace smallest, largest;  // The first of equals.
  base::Digest digest;           // Of the names of all documents in their order.
};

// Reads every token; `on_document`, which may be empty, gets the documents in their order.
DatasetContent read_content(
    const TokenDataset& dataset,
    const std::function<void(int64_t document, DocumentName)>& on_document = {});

}  // namespace data
