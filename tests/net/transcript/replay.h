// A transcript is a text of commands, each with what came of it below: comments begin with #,
// commands with >, and everything else was printed. A replay does the commands over a cluster of
// real machines in virtual time and prints anew; nothing else has a say in it, so the text is the
// same on every machine.
//
// Before the cluster is there:
//   nodes N          a, b, c, ...; by default 3
//   first N          so many start the run; by default all
//   chunks N         of the state; by default 6
//   blocks N BYTES   in which it is fetched, and how large they are made
//   keep N           rounds whose results are kept for those who catch up; by default 4
//   plan KIND        two-level or ring; by default direct
//   line BYTES       per second, of each connection; by default 10 MB
// Then, where NODE may be `coordinator` as well for all that make sense for it:
//   start            the coordinator and all nodes;   start NODE...
//   start NODE fresh               with an empty disk
//   kill NODE / kill NODE silently (its connections hang) / freeze NODE / thaw NODE / leave NODE
//   cut A B / heal A B / break A B              what is between them: a cable; all connections
//   slow NODE TIMES / weightless NODE / absurd NODE / withdraw NODE
//   spoil state NODE / spoil contributions NODE N / spoil blocks NODE N
//   stranger NODE                  somebody dials it and sends garbage
//   run SECONDS
//   until version N / until NODE version N / until NODE active / until NODE stopped
//   when N MESSAGE from|to NODE, COMMAND
//                    once, when the N-th from now on is delivered: open, reown, done, commit,
//                    catch-up, contribution, subtotal, result, block, past
//   show chunks / show chunks to NODE / hide chunks
//   quietly COMMAND                what comes of it is not printed
#pragma once

#include <string>

#include "base/error.h"

namespace net {

// Failure: a command that does not exist or cannot be done, what `until` waited for in vain, or
// rules of the oracle (tests/net/fake_trainer.h) that were broken.
base::Result<std::string> replay(const std::string& transcript);

}  // namespace net
