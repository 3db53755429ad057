// The signal that takes a vCPU thread out of KVM_RUN. Node uses SIGUSR1 itself, so a real-time signal it is.
#pragma once

#include <pthread.h>
#include <signal.h>

namespace vivarium {

// Installs the empty handler, once a process, without SA_RESTART.
void installKickHandler();
// For a thread that will enter KVM_RUN: every signal blocked but the kick. Called with all of them blocked.
void unblockKick();
void sendKick(pthread_t thread);

// Blocks every signal while it lives, so that a thread made meanwhile starts with all blocked.
class BlockSignals {
 public:
  BlockSignals();
  ~BlockSignals();
  BlockSignals(const BlockSignals&) = delete;
  BlockSignals& operator=(const BlockSignals&) = delete;

 private:
  sigset_t before_;
};

}  // namespace vivarium
