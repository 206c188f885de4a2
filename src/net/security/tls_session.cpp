#include "net/security/tls_session.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <fmt/format.h>
#include <openssl/err.h>

#include "base/hash.h"

namespace net {
namespace {

// A certificate of ours has some 230 bytes; nobody needs a chain.
constexpr long kCertificateBytesMax = 2048;
// RFC 8446, section 5.5, allows AES-GCM 2^24.5 records with one key. Some 270 GB of chunks.
constexpr int64_t kRecordsMax = int64_t{1} << 24;

std::string last_error() {
  std::array<char, 256> text{};
  ERR_error_string_n(ERR_peek_last_error(), text.data(), text.size());
  return text.data();
}

// With its length before it, as ALPN wants it.
std::string protocol_name(const std::string& run_name) {
  const base::Digest digest = base::sha256(std::as_bytes(std::span(run_name)));
  const std::string name = "atoll/1 " + digest.hex().substr(0, 32);
  return char(name.size()) + name;
}

const unsigned char* as_unsigned(const std::string& text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

}  // namespace

// What OpenSSL calls.
struct TlsCallbacks {
  static TlsSession& session_of(BIO* bio) { return *static_cast<TlsSession*>(BIO_get_data(bio)); }

  static int read(BIO* bio, char* into, size_t room, size_t* count) {
    auto& received = session_of(bio).received_;
    BIO_clear_retry_flags(bio);
    *count = std::min(room, received.size());
    if (*count == 0) {
      BIO_set_retry_read(bio);
      return 0;
    }
    std::memcpy(into, received.data(), *count);
    received = received.subspan(*count);
    return 1;
  }

  static int write(BIO* bio, const char* from, size_t count, size_t* written) {
    session_of(bio).send_(std::as_bytes(std::span(from, count)));
    *written = count;
    return 1;
  }

  static long control(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

  static int create(BIO* bio) {
    BIO_set_init(bio, 1);
    return 1;
  }

  static int verify(X509_STORE_CTX* store, void* context) {
    const int index = SSL_get_ex_data_X509_STORE_CTX_idx();
    auto* const ssl = static_cast<SSL*>(X509_STORE_CTX_get_ex_data(store, index));
    auto& session = *static_cast<TlsSession*>(SSL_get_app_data(ssl));
    const auto& settings = *static_cast<const TlsContext*>(context);
    const int error = judge(X509_STORE_CTX_get0_cert(store), settings, session);
    X509_STORE_CTX_set_error(store, error);
    return error == X509_V_OK ? 1 : 0;
  }

  // The errors are those whose alerts the other side tells apart, see reason_of_alert().
  static int judge(X509* certificate, const TlsContext& context, TlsSession& session) {
    EVP_PKEY* const key = certificate ? X509_get0_pubkey(certificate) : nullptr;
    NodeId node;
    size_t byte_count = node.bytes.size();
    if (key == nullptr || EVP_PKEY_get_id(key) != EVP_PKEY_ED25519 ||
        EVP_PKEY_get_raw_public_key(key, node.bytes.data(), &byte_count) != 1) {
      session.refusal_ = "its certificate has no Ed25519 key";
      return X509_V_ERR_INVALID_CA;
    }
    if (node.is_weak()) {
      session.refusal_ = "its key is one for which anybody can sign";
      return X509_V_ERR_INVALID_CA;
    }
    if (context.signer_ && X509_verify(certificate, context.signer_.get()) != 1) {
      session.refusal_ = "it has another run secret";
      return X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN;
    }
    if (!context.allows(node)) {
      session.refusal_ = fmt::format("its key {} is not on the list of the run", node.text());
      return X509_V_ERR_CERT_REVOKED;
    }
    session.peer_ = node;
    return X509_V_OK;
  }

  // Whatever a handshake says after its end (new keys, tickets) no node says: it only costs time.
  static void watch(int is_written, int, int content_type, const void*, size_t, SSL* ssl, void*) {
    auto& session = *static_cast<TlsSession*>(SSL_get_app_data(ssl));
    if (session.stands_ && is_written == 0 && content_type == SSL3_RT_HANDSHAKE)
      session.refusal_ = "it goes on shaking hands after it has been let in";
  }

  static int choose_protocol(SSL*, const unsigned char** chosen, unsigned char* chosen_bytes,
                             const unsigned char* offered, unsigned offered_bytes, void* context) {
    const std::string& ours = static_cast<const TlsContext*>(context)->protocol_;
    unsigned char* found = nullptr;
    if (SSL_select_next_proto(&found, chosen_bytes, as_unsigned(ours), unsigned(ours.size()),
                              offered, offered_bytes) != OPENSSL_NPN_NEGOTIATED)
      return SSL_TLSEXT_ERR_ALERT_FATAL;
    *chosen = found;
    return SSL_TLSEXT_ERR_OK;
  }
};

TlsContext::TlsContext(const Security& security)
    : allowed_(security.allowed), protocol_(protocol_name(security.run_name)) {
  CHECK(security.secret.has_value() != (security.allowed != nullptr));
  const NodeKey signer =
      security.secret ? security.secret->signer(security.run_name) : security.key;
  if (security.secret) signer_ = private_key(signer);

  bio_.reset(BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "atoll"));
  BIO_METHOD* const bio = bio_.get();
  CHECK(bio != nullptr);
  CHECK(BIO_meth_set_read_ex(bio, TlsCallbacks::read) == 1);
  CHECK(BIO_meth_set_write_ex(bio, TlsCallbacks::write) == 1);
  CHECK(BIO_meth_set_ctrl(bio, TlsCallbacks::control) == 1);
  CHECK(BIO_meth_set_create(bio, TlsCallbacks::create) == 1);

  settings_.reset(SSL_CTX_new(TLS_method()));
  SSL_CTX* const settings = settings_.get();
  CHECK(settings != nullptr, "{}", last_error());
  CHECK(SSL_CTX_set_min_proto_version(settings, TLS1_3_VERSION) == 1);
  CHECK(SSL_CTX_set_ciphersuites(settings, "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256") ==
        1);
  CHECK(SSL_CTX_set1_groups_list(settings, "X25519") == 1);
  CHECK(SSL_CTX_set1_sigalgs_list(settings, "ed25519") == 1);
  SSL_CTX_set_options(settings, SSL_OP_NO_TICKET);
  CHECK(SSL_CTX_set_num_tickets(settings, 0) == 1);
  SSL_CTX_set_session_cache_mode(settings, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_mode(settings, SSL_MODE_ENABLE_PARTIAL_WRITE);
  SSL_CTX_set_max_cert_list(settings, kCertificateBytesMax);
  SSL_CTX_set_verify(settings, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  SSL_CTX_set_cert_verify_callback(settings, TlsCallbacks::verify, this);
  SSL_CTX_set_msg_callback(settings, TlsCallbacks::watch);
  SSL_CTX_set_alpn_select_cb(settings, TlsCallbacks::choose_protocol, this);
  CHECK(SSL_CTX_use_certificate(settings, make_certificate(security.key, signer).get()) == 1);
  CHECK(SSL_CTX_use_PrivateKey(settings, private_key(security.key).get()) == 1);
}

TlsSession::TlsSession(const TlsContext& context, Role role, Send send)
    : send_(std::move(send)), state_(SSL_new(context.settings_.get())) {
  SSL* const ssl = state_.get();
  if (ssl == nullptr) throw std::bad_alloc();
  SSL_set_app_data(ssl, this);
  BIO* const bio = BIO_new(context.bio_.get());
  if (bio == nullptr) throw std::bad_alloc();
  BIO_set_data(bio, this);
  SSL_set_bio(ssl, bio, bio);  // It owns it.
  if (role == Role::kServer) {
    SSL_set_accept_state(ssl);
    return;
  }
  const std::string& protocol = context.protocol_;
  CHECK(SSL_set_alpn_protos(ssl, as_unsigned(protocol), unsigned(protocol.size())) == 0);
  SSL_set_connect_state(ssl);
}

void TlsSession::receive(std::span<const std::byte> ciphertext) {
  received_ = ciphertext;
}

base::Result<bool> TlsSession::handshake() {
  SSL* const ssl = state_.get();
  ERR_clear_error();
  const int status = SSL_do_handshake(ssl);
  if (status != 1) {
    if (SSL_get_error(ssl, status) == SSL_ERROR_WANT_READ) return false;
    return failure();
  }
  const unsigned char* protocol = nullptr;
  unsigned protocol_bytes = 0;
  SSL_get0_alpn_selected(ssl, &protocol, &protocol_bytes);
  if (protocol_bytes == 0) return base::Failure{"it does not say which run it is of"};
  stands_ = true;
  return true;
}

base::Result<int64_t> TlsSession::read(std::span<std::byte> plain) {
  SSL* const ssl = state_.get();
  ERR_clear_error();
  size_t byte_count = 0;
  const int status = SSL_read_ex(ssl, plain.data(), plain.size(), &byte_count);
  if (!refusal_.empty()) return base::Failure{refusal_};
  if (status == 1) return int64_t(byte_count);
  const int error = SSL_get_error(ssl, status);
  if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_ZERO_RETURN) return 0;
  return failure();
}

bool TlsSession::is_closed_by_peer() const {
  return (SSL_get_shutdown(state_.get()) & SSL_RECEIVED_SHUTDOWN) != 0;
}

base::Result<int64_t> TlsSession::write(std::span<const std::byte> plain) {
  if (++record_count_ > kRecordsMax)
    return base::Failure{"as much was sent as one key may encrypt; another connection goes on"};
  ERR_clear_error();
  size_t byte_count = 0;
  const int status = SSL_write_ex(state_.get(), plain.data(), plain.size(), &byte_count);
  if (status != 1) return failure();
  return int64_t(byte_count);
}

void TlsSession::close() {
  ERR_clear_error();
  SSL_shutdown(state_.get());
}

// In words for whoever must cure it: the commonest causes are a wrong file and a wrong port.
base::Failure TlsSession::failure() const {
  if (!refusal_.empty()) return {refusal_};
  switch (ERR_GET_REASON(ERR_peek_last_error())) {
    case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
      return {"it does not take us: its run secret is not ours"};
    case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED:
      return {"it does not take us: our key is not on its list"};
    case SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL:
    case SSL_R_NO_APPLICATION_PROTOCOL:
      return {"it belongs to another run"};
    case SSL_R_WRONG_VERSION_NUMBER:
    case SSL_R_BAD_RECORD_TYPE:
      return {"it does not speak TLS"};
    default:
      return {fmt::format("the secure connection failed: {}", last_error())};
  }
}

}  // namespace net
