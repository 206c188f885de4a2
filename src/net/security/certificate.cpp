#include <openssl/asn1.h>
#include <openssl/x509.h>

#include "base/error.h"
#include "net/security/openssl_handles.h"

namespace net {

PrivateKey private_key(const NodeKey& key) {
  PrivateKey made(EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nullptr, key.seed().data(),
                                               key.seed().size()));
  CHECK(made != nullptr, "OpenSSL without Ed25519");
  return made;
}

Certificate make_certificate(const NodeKey& key, const NodeKey& signer) {
  constexpr long kVersion3 = 2;
  Certificate certificate(X509_new());
  X509* const raw = certificate.get();
  CHECK(raw != nullptr && X509_set_version(raw, kVersion3) == 1);
  CHECK(ASN1_INTEGER_set(X509_get_serialNumber(raw), 1) == 1);
  CHECK(ASN1_TIME_set_string(X509_getm_notBefore(raw), "700101000000Z") == 1);
  CHECK(ASN1_TIME_set_string(X509_getm_notAfter(raw), "99991231235959Z") == 1);
  CHECK(X509_set_pubkey(raw, private_key(key).get()) == 1);
  const auto* const name = reinterpret_cast<const unsigned char*>("atoll");
  CHECK(X509_NAME_add_entry_by_txt(X509_get_subject_name(raw), "CN", MBSTRING_ASC, name, -1, -1,
                                   0) == 1);
  CHECK(X509_set_issuer_name(raw, X509_get_subject_name(raw)) == 1);
  CHECK(X509_sign(raw, private_key(signer).get(), nullptr) > 0);  // Ed25519 has its own digest.
  return certificate;
}

}  // namespace net
