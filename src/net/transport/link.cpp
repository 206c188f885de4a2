// A call to the observer may destroy the link: it is the last thing that a function does, but for
// read_frames(), on_ciphertext() and stand().
#include "net/transport/link.h"

#include <array>
#include <memory>
#include <mutex>
#include <netinet/tcp.h>
#include <string_view>
#include <sys/socket.h>

#include "base/log.h"
#include "net/transport/address.h"

namespace net {
namespace {

// A silent connection is tested after 5 s. One whose bytes nobody acknowledges is given up after 15
// s, the time after which the coordinator calls a silent member dead.
constexpr unsigned kKeepaliveSeconds = 5;
constexpr unsigned kUserTimeoutMilliseconds = 15000;

#ifdef TCP_CONGESTION
void tell_congestion_control(uv_os_fd_t descriptor) {
  std::array<char, 16> name{};  // As long as the system's names are.
  auto byte_count = socklen_t(name.size() - 1);
  if (getsockopt(descriptor, IPPROTO_TCP, TCP_CONGESTION, name.data(), &byte_count) != 0) return;
  base::log_info("links use {} congestion control", name.data());
}
#endif

// It does not take a lost packet for a full path: on long paths with some loss several times as
// fast as the others.
constexpr std::string_view kCongestionControl = "bbr";

// None of them is needed for correctness: where the system refuses one, the link works without it.
// Buffers are left to the system, which makes them as large as the path needs; a size that is set
// would stay.
void set_options(uv_tcp_t* socket, double bytes_per_second) {
  uv_tcp_nodelay(socket, 1);
  uv_tcp_keepalive(socket, 1, kKeepaliveSeconds);
  uv_os_fd_t descriptor;
  if (uv_fileno(reinterpret_cast<uv_handle_t*>(socket), &descriptor) != 0) return;
#ifdef TCP_USER_TIMEOUT
  setsockopt(descriptor, IPPROTO_TCP, TCP_USER_TIMEOUT, &kUserTimeoutMilliseconds,
             sizeof(kUserTimeoutMilliseconds));
#endif
#ifdef SO_MAX_PACING_RATE
  if (bytes_per_second > 0) {
    const auto rate = uint32_t(std::min(bytes_per_second, 4e9));
    setsockopt(descriptor, SOL_SOCKET, SO_MAX_PACING_RATE, &rate, sizeof(rate));
  }
#endif
#ifdef TCP_CONGESTION
  setsockopt(descriptor, IPPROTO_TCP, TCP_CONGESTION, kCongestionControl.data(),
             socklen_t(kCongestionControl.size()));
  static std::once_flag once;
  std::call_once(once, [&] { tell_congestion_control(descriptor); });
#endif
}

// A stranger may make us read so much before it has proved who it is. Two certificates of ours and
// all that TLS says around them are some 700 bytes.
constexpr int64_t kBytesToSecureMax = 1024;
constexpr Duration kRefusalPatience = std::chrono::seconds(1);
constexpr const char* kRevoked = "its key is not on the list of the run any more";
constexpr size_t kCiphertextBytes = 64 * 1024;

// libuv's buffers are not const because reads use them too.
uv_buf_t buffer_of(std::span<const std::byte> bytes) {
  auto* data = const_cast<char*>(reinterpret_cast<const char*>(bytes.data()));
  return uv_buf_init(data, unsigned(bytes.size()));
}

int64_t frame_bytes(const Message& message) {
  return kFrameHeaderBytes + int64_t(message.payload->size());
}

}  // namespace

// These live from uv_write to its callback and hold what libuv sends from.
struct Link::WriteRequest {
  uv_write_t request;
  FrameHeader header;
  Bytes payload;
};
struct Link::Flush {
  uv_write_t request;
  std::vector<std::byte> bytes;
};

Link::Link(LinkContext& context, LinkId id, Origin origin)
    : context_(context),
      id_(id),
      origin_(origin),
      parser_(origin == Origin::kDialled ? FrameParser::Chunks::kAccepted
                                         : FrameParser::Chunks::kRefused,
              context.buffers) {}

Link::~Link() {
  count_queued(-counted_bytes_);
  release_resolution();
  release_socket();
}

void Link::release_resolution() {
  if (resolution_ == nullptr) return;
  resolution_->data = nullptr;
  uv_cancel(reinterpret_cast<uv_req_t*>(resolution_));
  resolution_ = nullptr;
}

void Link::make_socket() {
  socket_ = new uv_tcp_t;
  const int status = uv_tcp_init(context_.loop, socket_);
  CHECK(status == 0, "{}", uv_strerror(status));  // It only fills the struct.
  socket_->data = this;
}

void Link::release_socket() {
  if (socket_ == nullptr) return;
  socket_->data = nullptr;
  uv_close(reinterpret_cast<uv_handle_t*>(socket_),
           [](uv_handle_t* handle) { delete reinterpret_cast<uv_tcp_t*>(handle); });
  socket_ = nullptr;
}

void Link::dial(const Endpoint& endpoint) {
  endpoint_ = endpoint;
  deadline_ = monotonic_now() + context_.dial_timeout;
  if (const auto address = numeric_address(endpoint)) return dial(endpoint, {*address});
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  resolution_ = new uv_getaddrinfo_t;
  resolution_->data = this;
  const auto done = [](uv_getaddrinfo_t* request, int status, addrinfo* found) {
    if (auto* link = static_cast<Link*>(request->data)) link->on_resolved(status, found);
    uv_freeaddrinfo(found);
    delete request;
  };
  const int status = uv_getaddrinfo(context_.loop, resolution_, done, endpoint.host.c_str(),
                                    std::to_string(endpoint.port).c_str(), &hints);
  if (status == 0) return;
  delete std::exchange(resolution_, nullptr);
  last_error_ = status;
  try_next_address();
}

void Link::on_resolved(int status, const addrinfo* found) {
  resolution_ = nullptr;
  last_error_ = status;
  dial(endpoint_, found_addresses(found));
}

void Link::dial(const Endpoint& endpoint, std::vector<sockaddr_storage> addresses) {
  endpoint_ = endpoint;
  addresses_ = std::move(addresses);
  try_next_address();
}

void Link::try_next_address() {
  while (next_address_ < addresses_.size()) {
    last_error_ = connect(addresses_[next_address_++]);
    if (last_error_ == 0) return;
  }
  end(fmt::format("cannot connect to {}: {}", endpoint_.text(), uv_strerror(last_error_)));
}

int Link::connect(const sockaddr_storage& address) {
  release_socket();
  make_socket();
  if (!is_finishing_) deadline_ = monotonic_now() + context_.dial_timeout;
  auto request = std::make_unique<uv_connect_t>();
  const auto done = [](uv_connect_t* finished, int status) {
    const std::unique_ptr<uv_connect_t> owner(finished);
    if (auto* link = static_cast<Link*>(finished->handle->data)) link->on_connected(status);
  };
  const int status =
      uv_tcp_connect(request.get(), socket_, reinterpret_cast<const sockaddr*>(&address), done);
  if (status == 0) request.release();
  return status;
}

void Link::on_connected(int status) {
  if (status == 0) return open();
  last_error_ = status;
  try_next_address();
}

int Link::accept(uv_stream_t* listener) {
  make_socket();
  const int status = uv_accept(listener, reinterpret_cast<uv_stream_t*>(socket_));
  if (status == 0) remote_network_ = network_of(remote_endpoint(socket_).host);
  return status;
}

void Link::open() {
  phase_ = context_.tls ? Phase::kSecuring : Phase::kOpen;
  if (!is_finishing_ && is_incoming()) deadline_ = monotonic_now() + context_.first_frame_timeout;
  if (!is_finishing_ && !is_incoming()) {
    deadline_ = context_.tls ? monotonic_now() + context_.dial_timeout : Instant::max();
  }
  set_options(socket_, context_.socket_bytes_per_second);
  const auto allocate = [](uv_handle_t* handle, size_t, uv_buf_t* buffer) {
    const auto room = static_cast<Link*>(handle->data)->room_to_read();
    *buffer = uv_buf_init(reinterpret_cast<char*>(room.data()), unsigned(room.size()));
  };
  const auto read = [](uv_stream_t* stream, ssize_t status, const uv_buf_t*) {
    if (auto* link = static_cast<Link*>(stream->data)) link->on_read(status);
  };
  const int status = uv_read_start(reinterpret_cast<uv_stream_t*>(socket_), allocate, read);
  if (status != 0) return end(uv_strerror(status));
  if (!context_.tls) return stand();
  if (is_incoming()) return;  // Who says nothing costs nothing.
  make_session(TlsSession::Role::kClient);
  go_on_securing();
}

void Link::make_session(TlsSession::Role role) {
  session_ = std::make_unique<TlsSession>(
      *context_.tls, role, [this](std::span<const std::byte> bytes) { send_ciphertext(bytes); });
}

void Link::go_on_securing() {
  const auto secured = session_->handshake();
  if (!secured.ok()) return refuse(secured.reason());
  if (write_error_ != 0) return end(uv_strerror(write_error_));
  if (*secured) {
    node_ = session_->peer();
    // The list may have changed since its certificate was looked at.
    if (!context_.tls->allows(node_)) return refuse(kRevoked);
    return stand();
  }
  if (is_incoming() && bytes_to_secure_ >= kBytesToSecureMax) {
    refuse(fmt::format("it has not proved who it is in {} bytes", kBytesToSecureMax));
  }
}

// TLS has told the other side why. A reset would overtake that, so the end waits for its FIN.
void Link::refuse(const std::string& reason) {
  refusal_ = reason;
  is_finishing_ = true;
  deadline_ = monotonic_now() + kRefusalPatience;
  shut_down();
}

// Both sides can talk.
void Link::stand() {
  phase_ = Phase::kOpen;
  has_stood_ = true;
  if (!is_finishing_) {
    deadline_ = is_incoming() ? monotonic_now() + context_.first_frame_timeout : Instant::max();
  }
  if (const Status pumped = pump(); !pumped.ok()) return end(pumped.reason());
  if (is_finishing_) return shut_down_if_sent();
  const std::weak_ptr<const char> life = life_;
  context_.observer->link_opened(id_, {.endpoint = remote_endpoint(socket_), .node = node_});
  if (!life.expired() && phase_ == Phase::kOpen) tell_if_drained();
}

// --- Reading.

std::span<std::byte> Link::room_to_read() {
  if (!context_.tls) return parser_.next_bytes();
  context_.ciphertext.resize(kCiphertextBytes);
  const std::span<std::byte> room(context_.ciphertext);
  if (!is_half_open() || !refusal_.empty()) return room;
  return room.first(size_t(kBytesToSecureMax - bytes_to_secure_));
}

void Link::on_read(ssize_t status) {
  if (status == 0) return;  // Nothing there after all.
  if (!refusal_.empty()) return on_refused_read(status);
  if (status < 0 && phase_ == Phase::kSecuring) {
    return end(
        fmt::format("{} before the connection was secured: does it speak TLS?",
                    status == UV_EOF ? "closed by the other side" : uv_strerror(int(status))));
  }
  if (status == UV_EOF) {
    return end(parser_.is_between_frames() ? "closed by the other side"
                                           : "closed by the other side in the middle of a frame");
  }
  if (status < 0) return end(uv_strerror(int(status)));
  context_.bytes_received += status;
  if (context_.tls) return on_ciphertext(status);
  on_frame_bytes(status);
}

// Until its FIN, or until it has said too much.
void Link::on_refused_read(ssize_t status) {
  if (status > 0) bytes_to_secure_ += status;
  if (status < 0 || bytes_to_secure_ > 2 * kBytesToSecureMax) end(refusal_);
}

void Link::on_frame_bytes(int64_t byte_count) {
  auto read = parser_.advance(byte_count);
  if (!read.ok()) return end(read.reason());
  if (!read->has_value() || is_finishing_) return;
  deadline_ = Instant::max();  // That of the first frame.
  context_.observer->link_received(id_, std::move(**read));
}

void Link::on_ciphertext(int64_t byte_count) {
  if (!session_) make_session(TlsSession::Role::kServer);
  session_->receive(std::span<const std::byte>(context_.ciphertext).first(size_t(byte_count)));
  if (phase_ == Phase::kSecuring) {
    bytes_to_secure_ += byte_count;
    const std::weak_ptr<const char> life = life_;
    go_on_securing();
    if (life.expired()) return;
  }
  if (phase_ == Phase::kOpen) read_frames();
}

// Of all that has come. What an observer does between two frames may be the end of the link.
void Link::read_frames() {
  const std::weak_ptr<const char> life = life_;
  while (!life.expired() && phase_ == Phase::kOpen) {
    const auto byte_count = session_->read(parser_.next_bytes());
    if (!byte_count.ok()) return end(byte_count.reason());
    if (write_error_ != 0) return end(uv_strerror(write_error_));
    if (*byte_count == 0 && session_->is_closed_by_peer()) return end("closed by the other side");
    if (*byte_count == 0) return;
    on_frame_bytes(*byte_count);
  }
}

// --- Sending.

int64_t Link::queued_bytes() const {
  const auto* stream = reinterpret_cast<const uv_stream_t*>(socket_);
  return unsent_bytes_ + int64_t(unflushed_.size()) +
         (stream == nullptr ? 0 : int64_t(uv_stream_get_write_queue_size(stream)));
}

void Link::send(Message message) {
  if (phase_ == Phase::kEnded) return;
  const int64_t byte_count = frame_bytes(message);
  if (queued_bytes() + byte_count > context_.queued_bytes_hard_max) {
    return end(fmt::format("more than {} bytes were queued", context_.queued_bytes_hard_max));
  }
  count_queued(byte_count);
  unsent_.push_back(std::move(message));
  unsent_bytes_ += byte_count;
  if (const Status pumped = pump(); !pumped.ok()) return end(pumped.reason());
  if (queued_bytes() > kQueuedBytesMax / 2) was_above_half_ = true;
}

void Link::count_queued(int64_t byte_count) {
  counted_bytes_ += byte_count;
  context_.queued_bytes += byte_count;
}

Link::Status Link::pump() {
  while (phase_ == Phase::kOpen && !unsent_.empty() && !is_flushing_) {
    if (auto sent = session_ ? encrypt_some() : write_front(); !sent.ok()) return sent;
  }
  return {};
}

Link::Status Link::write_front() {
  Message message = std::move(unsent_.front());
  unsent_.pop_front();
  unsent_bytes_ -= frame_bytes(message);
  auto request = std::make_unique<WriteRequest>();
  request->request.data = request.get();
  request->header = encode_frame_header(message, context_.checksums.of(message.payload));
  request->payload = std::move(message.payload);
  const std::array<uv_buf_t, 2> buffers = {buffer_of(request->header),
                                           buffer_of(*request->payload)};
  const unsigned buffer_count = request->payload->empty() ? 1 : 2;
  const auto done = [](uv_write_t* finished, int status) {
    const std::unique_ptr<WriteRequest> owner(static_cast<WriteRequest*>(finished->data));
    auto* link = static_cast<Link*>(finished->handle->data);
    const auto byte_count = kFrameHeaderBytes + int64_t(owner->payload->size());
    if (link != nullptr) link->on_written(status, byte_count);
  };
  const int status = uv_write(&request->request, reinterpret_cast<uv_stream_t*>(socket_),
                              buffers.data(), buffer_count, done);
  if (status != 0) return base::Failure{uv_strerror(status)};
  request.release();
  return {};
}

void Link::on_written(int status, int64_t byte_count) {
  if (status < 0) return end(uv_strerror(status));
  context_.bytes_sent += byte_count;
  count_queued(-byte_count);
  tell_if_drained();
}

void Link::tell_if_drained() {
  if (!was_above_half_ || queued_bytes() > kQueuedBytesMax / 2) return;
  was_above_half_ = false;
  context_.observer->link_drained(id_);
}

// One record of the oldest message.
Link::Status Link::encrypt_some() {
  const Message& message = unsent_.front();
  if (front_sent_ == 0) {
    header_ = encode_frame_header(message, context_.checksums.of(message.payload));
  }
  const bool is_in_header = front_sent_ < kFrameHeaderBytes;
  const auto rest =
      is_in_header ? std::span<const std::byte>(header_).subspan(size_t(front_sent_))
                   : std::span(*message.payload).subspan(size_t(front_sent_ - kFrameHeaderBytes));
  const auto byte_count = session_->write(rest);
  if (!byte_count.ok()) return base::Failure{byte_count.reason()};
  if (write_error_ != 0) return base::Failure{uv_strerror(write_error_)};
  front_sent_ += *byte_count;
  unsent_bytes_ -= *byte_count;
  if (front_sent_ < frame_bytes(message)) return {};
  count_queued(-front_sent_);
  front_sent_ = 0;
  unsent_.pop_front();
  return {};
}

// OpenSSL's, inside of any call to the session.
void Link::send_ciphertext(std::span<const std::byte> bytes) {
  if (!is_flushing_) {
    const uv_buf_t buffer = buffer_of(bytes);
    const int taken = uv_try_write(reinterpret_cast<uv_stream_t*>(socket_), &buffer, 1);
    if (taken < 0 && taken != UV_EAGAIN) {
      write_error_ = taken;
      return;
    }
    const size_t taken_bytes = size_t(std::max(taken, 0));
    context_.bytes_sent += int64_t(taken_bytes);
    bytes = bytes.subspan(taken_bytes);
  }
  if (bytes.empty()) return;
  unflushed_.insert(unflushed_.end(), bytes.begin(), bytes.end());
  if (!is_flushing_) flush();
}

void Link::flush() {
  auto request = std::make_unique<Flush>();
  request->request.data = request.get();
  request->bytes.swap(unflushed_);
  const uv_buf_t buffer = buffer_of(request->bytes);
  const auto done = [](uv_write_t* finished, int status) {
    const std::unique_ptr<Flush> owner(static_cast<Flush*>(finished->data));
    auto* link = static_cast<Link*>(finished->handle->data);
    if (link == nullptr) return;
    link->context_.bytes_sent += int64_t(owner->bytes.size());
    link->on_flushed(status);
  };
  const int status =
      uv_write(&request->request, reinterpret_cast<uv_stream_t*>(socket_), &buffer, 1, done);
  if (status != 0) {
    write_error_ = status;
    return;
  }
  is_flushing_ = true;
  request.release();
}

void Link::on_flushed(int status) {
  is_flushing_ = false;
  if (status < 0) return end(uv_strerror(status));
  if (!unflushed_.empty()) flush();
  const Status pumped = pump();
  if (!pumped.ok()) return end(pumped.reason());
  if (write_error_ != 0) return end(uv_strerror(write_error_));
  if (is_finishing_) return shut_down_if_sent();
  tell_if_drained();
}

// --- The end.

void Link::finish(Duration patience) {
  if (!refusal_.empty()) return;  // It is ending already.
  CHECK(!is_finishing_ && !has_ended());
  is_finishing_ = true;
  deadline_ = monotonic_now() + patience;
  if (phase_ == Phase::kOpen) return shut_down_if_sent();
  if (unsent_.empty()) end("closed");
}

void Link::shut_down_if_sent() {
  if (!unsent_.empty() || is_flushing_ || is_close_told_) return;  // Then it is called again.
  is_close_told_ = true;
  if (session_) session_->close();
  shut_down();
}

// libuv sends FIN after everything that is queued; on_read then hears of the other side's.
void Link::shut_down() {
  auto request = std::make_unique<uv_shutdown_t>();
  const auto done = [](uv_shutdown_t* finished, int status) {
    const std::unique_ptr<uv_shutdown_t> owner(finished);
    auto* link = static_cast<Link*>(finished->handle->data);
    if (link != nullptr && status < 0)
      link->end(link->refusal_.empty() ? uv_strerror(status) : link->refusal_);
  };
  const int status = uv_shutdown(request.get(), reinterpret_cast<uv_stream_t*>(socket_), done);
  if (status != 0) return end(refusal_.empty() ? uv_strerror(status) : refusal_);
  request.release();
}

// The system acknowledges what the other side's program does not read, until that side's buffer is
// full: so keepalives and time-outs of TCP do not notice.
bool Link::is_write_stalled(Instant now) {
  const auto unwritten = size_t(queued_bytes());
  if (unwritten == 0 || unwritten < unwritten_bytes_ || unwritten_bytes_ == 0) shrunk_at_ = now;
  unwritten_bytes_ = unwritten;
  return unwritten > 0 && now - shrunk_at_ >= context_.write_stall_timeout;
}

void Link::check_deadline(Instant now) {
  if (phase_ == Phase::kOpen && is_write_stalled(now)) return end("it takes nothing");
  if (now < deadline_ || phase_ == Phase::kEnded) return;
  if (!refusal_.empty()) return end(refusal_);
  if (is_finishing_) return end("closed, and the other side did not answer");
  if (phase_ == Phase::kOpen) return end("it did not send a frame in time");
  if (phase_ == Phase::kSecuring) return end("it has not proved who it is in time");
  last_error_ = UV_ETIMEDOUT;
  try_next_address();
}

void Link::cut(const std::string& reason) {
  if (phase_ != Phase::kEnded) end(reason);
}

void Link::cut_if_revoked() {
  if (has_stood_ && context_.tls && !context_.tls->allows(node_)) cut(kRevoked);
}

void Link::end(const std::string& reason) {
  phase_ = Phase::kEnded;
  session_.reset();  // The rest of the link is small, and lives until the host's next tick.
  count_queued(-counted_bytes_);
  release_resolution();
  release_socket();
  context_.observer->link_ended(id_, reason);
}

}  // namespace net
