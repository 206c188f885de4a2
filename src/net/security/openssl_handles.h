// OpenSSL's objects as values that free themselves.
#pragma once

#include <memory>
#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include "net/keys.h"

namespace net {

template <auto kFree>
struct FreeWith {
  template <class T>
  void operator()(T* object) const {
    kFree(object);
  }
};

using PrivateKey = std::unique_ptr<EVP_PKEY, FreeWith<EVP_PKEY_free>>;
using Certificate = std::unique_ptr<X509, FreeWith<X509_free>>;
using TlsSettings = std::unique_ptr<SSL_CTX, FreeWith<SSL_CTX_free>>;
using TlsState = std::unique_ptr<SSL, FreeWith<SSL_free>>;
using BioMethod = std::unique_ptr<BIO_METHOD, FreeWith<BIO_meth_free>>;

PrivateKey private_key(const NodeKey& key);

// Shows that a node has a key: in the certificate's public key, signed by `signer` (the run's, or
// the node's own). Nothing else in it means anything; it is valid at any time, because clocks of
// rented machines are not to be relied on.
Certificate make_certificate(const NodeKey& key, const NodeKey& signer);

}  // namespace net
