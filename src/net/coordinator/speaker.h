// How the coordinator addresses members: with the authority that every frame carries.
#pragma once

#include <algorithm>

#include "net/coordinator/roster.h"
#include "net/turn.h"

namespace net {

class Speaker {
 public:
  Speaker(uint64_t run, uint32_t term) : run_(run), term_(term) {}

  uint64_t run() const { return run_; }
  uint32_t term() const { return term_; }
  uint64_t epoch() const { return epoch_; }
  void raise_term(uint32_t term) { term_ = std::max(term_, term); }
  void next_epoch() { ++epoch_; }
  void raise_epoch(uint64_t epoch) { epoch_ = std::max(epoch_, epoch); }

  void send(LinkId link, MessageType type, Bytes payload, Turn turn) const {
    send(link, type, {.term = term_}, std::move(payload), turn);
  }
  // Of a round.
  void send(LinkId link, MessageType type, const Authority& authority, Bytes payload,
            Turn turn) const {
    Message message{.type = type, .run = run_, .source = kNobody, .authority = authority};
    message.authority.epoch = epoch_;
    message.payload = std::move(payload);
    turn.out.send(link, std::move(message));
  }

 private:
  const uint64_t run_;
  uint32_t term_;
  uint64_t epoch_ = 0;
};

}  // namespace net
